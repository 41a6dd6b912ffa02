"""Writers of other formats, one file per format.

- ``labels``: label images with classes, for napari
- ``cellpose``: label images under cellpose's names
- ``stardist``: label images in StarDist's folders
- ``geojson``: outlines, for QuPath
- ``batches``: cells that are written together, with their outlines and measures
- ``columns``: what tables hold of each cell
- ``tables``: one row per cell, for spreadsheets
- ``parquet``: one table of all images, with outlines
- ``coco``: COCO JSON
"""
