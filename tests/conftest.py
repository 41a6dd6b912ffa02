"""For all tests and the processes that they start: nobody asked for the network, so nothing may use it."""

import os
import sys
from pathlib import Path

GUARD = str(Path(__file__).parent / "no_network")
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (GUARD, os.environ.get("PYTHONPATH"))))
sys.path.insert(0, GUARD)
sys.modules.pop("sitecustomize", None)  # one of the system's own
import sitecustomize  # noqa: E402, F401
