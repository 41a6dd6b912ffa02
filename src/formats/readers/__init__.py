"""Readers of other formats, one file per format, and what they share.

- ``labels``: label images
- ``described``: the classes in those of this program
- ``dsb2018``: one mask per nucleus
- ``consep``: CoNSeP's MATLAB files
- ``monusac``: slides with ImageScope's regions
- ``imagescope``: the regions of ImageScope's XML files
- ``coco``: COCO JSON files
- ``geojson``: GeoJSON files with their images
- ``qupath``: the objects of QuPath in them
- ``labelme``: labelme's JSON files
- ``via``: files of the VGG Image Annotator
- ``supervisely``: Supervisely's projects
"""
