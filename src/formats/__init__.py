"""Other formats in and out.

- ``coco``: COCO JSON files in
- ``places``: how files are found, and what their images are called
- ``staging``: writing a folder that is whole or not there
- ``imagescope``: regions of ImageScope's XML files
- ``importers``: readers, one per format
- ``imported``: what all readers share
- ``exporters``: writers, one per format
- ``conversion``: a whole import or export
"""
