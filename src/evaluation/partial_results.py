"""Results of finished images, kept beside the output, so that an interrupted prediction can be resumed."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.common.files import append_line, read_lines
from src.data.images_to_predict import TestImage


class PartialResults:
    """``.<output>.partial-<rank>.jsonl`` beside the output: one line per image, with a key.

    A line counts only for the same ``job`` (checkpoints and settings) and the same image file.
    """

    def __init__(self, output: str | Path, job: Any, rank: int) -> None:
        self.output = Path(output)
        self.path = self.output.with_name(f".{self.output.name}.partial-{rank}.jsonl")
        self._job = job

    def key(self, image: TestImage) -> str:
        """What the result of an image depends on."""
        state = image.image.stat()
        parts = [self._job, image.entry.id, image.entry.file_name, state.st_size, state.st_mtime_ns]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def read(self, images: Sequence[TestImage]) -> dict[int, list[dict[str, Any]]]:
        """Image id → entries of the images that are done, whichever process did them."""
        ids = {self.key(image): image.entry.id for image in images}
        lines = [line for path in self._files() for line in read_lines(path)]
        return {ids[line["key"]]: line["entries"] for line in lines if line.get("key") in ids}

    def add(self, image: TestImage, entries: list[dict[str, Any]]) -> None:
        """Keep the entries of an image."""
        append_line(self.path, {"key": self.key(image), "entries": entries})

    def remove(self) -> None:
        """Delete the files, once the output is written or a prediction starts over."""
        for path in self._files():
            path.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        return sorted(self.output.parent.glob(f".{self.output.name}.partial-*.jsonl"))
