"""Writers of other formats, one file per format.

- ``labels``: label images, for napari
- ``geojson``: outlines, for QuPath
- ``tables``: one row per cell, for spreadsheets
- ``coco``: COCO JSON
"""
