"""For all tests and the processes that they start: nobody asked for the network, so nothing may use it."""

import os
import sys
from pathlib import Path

GUARD = str(Path(__file__).parent / "no_network")
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (GUARD, os.environ.get("PYTHONPATH"))))
sys.path.insert(0, GUARD)
sys.modules.pop("sitecustomize", None)  # one of the system's own
import pytest  # noqa: E402
import sitecustomize  # noqa: E402, F401

from src.common.limits import DEFAULT_MAX_PIXELS, set_max_pixels  # noqa: E402


@pytest.fixture(autouse=True)
def default_limit_of_pixels() -> None:
    """What a test sets holds for it alone."""
    set_max_pixels(DEFAULT_MAX_PIXELS)
