"""Whole slides, in bounded memory.

- ``slide``: what readers of slides offer
- ``tiff_slide``: tiled and pyramidal TIFF
- ``openslide_slide``: slides of scanners
- ``dicom``: which DICOM files are one slide
- ``finding``: which files are slides, and which reader opens them
- ``scaled``: a slide at the magnification of the training
- ``tissue``: where a slide shows tissue
- ``tissue_file``: tissue as the regions of a file
- ``shards``: unfinished work on a slide, kept on disk
- ``claims``: which process predicts a slide, and from which files
- ``outputs``: the folder of a finished slide
- ``overview``: a picture of it with its cells
- ``densities``: cells per mm², by class and region
"""
