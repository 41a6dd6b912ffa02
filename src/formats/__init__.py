"""Other formats in and out.

- ``coco``: COCO JSON files in
- ``importers``: readers, one per format
- ``imported``: what all readers share
- ``exporters``: writers, one per format
- ``conversion``: a whole import or export
"""
