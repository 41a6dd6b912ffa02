"""Whole slides, in bounded memory.

- ``slide``: what readers of slides offer
- ``tiff_slide``: tiled and pyramidal TIFF
- ``openslide_slide``: slides of scanners
- ``scaled``: a slide at the magnification of the training
- ``tissue``: where a slide shows tissue
"""
