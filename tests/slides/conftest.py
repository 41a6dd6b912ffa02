"""Slides that are closed at the end of a test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from src.slides.tiff_slide import TiffSlide

OpenTiff = Callable[[Path], TiffSlide]


@pytest.fixture
def tiff() -> Iterator[OpenTiff]:
    """Opens a TIFF as a slide."""
    slides: list[TiffSlide] = []

    def opened(path: Path) -> TiffSlide:
        slides.append(TiffSlide(path))
        return slides[-1]

    yield opened
    for slide in slides:
        slide.close()
