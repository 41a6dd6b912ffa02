"""Other formats in and out.

- ``readers``: the formats that are read, one file per format
- ``importers``: which these are
- ``imported``: what all readers share
- ``named_images``: the images that a file of labels names
- ``drawn``: objects that were drawn with a tool
- ``slide_folder``: the folder of a predicted slide
- ``places``: how files are found, and what their images are called
- ``staging``: writing a folder that is whole or not there
- ``exported``: what all writers share
- ``writers``: the formats that are written, one file per format
- ``exporters``: which these are
- ``conversion``: a whole import or export
- ``cells_alone``: a whole export of cells without their images
"""
