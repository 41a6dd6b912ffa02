"""Run a script with the fake device: ``python -m tests.fake_cuda main.py --amp fp16 ...``.

Environment variables: FAKE_CUDA_CAPABILITY=7.5 makes it an older GPU, FAKE_CUDA_LIMIT=N lets it allocate N bytes, and
FAKE_CUDA_WAITS=FILE writes the waits of the host as JSON, the most frequent first.
"""

import json
import os
import runpy
import sys
from pathlib import Path

from tests.fake_cuda import fake_cuda


def main(argv: list[str]) -> None:
    """Run the script ``argv[0]`` as Python would, with ``argv`` as its arguments."""
    sys.argv = argv
    sys.path.insert(0, str(Path(argv[0]).resolve().parent))
    major, minor = os.environ.get("FAKE_CUDA_CAPABILITY", "8.0").split(".")
    with fake_cuda((int(major), int(minor))) as gpu:
        gpu.limit = int(os.environ.get("FAKE_CUDA_LIMIT", gpu.memory))
        try:
            runpy.run_path(argv[0], run_name="__main__")
        finally:
            if path := os.environ.get("FAKE_CUDA_WAITS"):
                rows = [{**wait._asdict(), "count": count} for wait, count in gpu.waits.most_common()]
                Path(path).write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
