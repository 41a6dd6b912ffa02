"""Readers of other formats, one file per format, and what they share.

- ``labels``: label images
- ``described``: the classes in those of this program
- ``pairs``: images and label images by two patterns of their names
- ``dsb2018``: one mask per nucleus
- ``consep``: CoNSeP's MATLAB files
- ``mat``: MATLAB files of Lizard, HoVer-Net, Kumar and CPM
- ``matlab``: variables and nuclei of MATLAB files
- ``pannuke``: PanNuke's NumPy files
- ``monusac``: slides with ImageScope's regions
- ``monuseg``: images with ImageScope's regions, all nuclei
- ``imagescope``: the regions of ImageScope's XML files
- ``coco``: COCO JSON files
- ``geojson``: GeoJSON files with their images
- ``geojson_cells``: the cells of GeoJSON files without their images
- ``geojson_files``: which GeoJSON files there are, and the image of each
- ``features``: the features of a file, one by one
- ``qupath``: the objects of QuPath in them
- ``labelme``: labelme's JSON files
- ``via``: files of the VGG Image Annotator
- ``supervisely``: Supervisely's projects
"""
