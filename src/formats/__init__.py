"""Other formats in and out.

- ``importers``: readers, one per format
- ``imported``: what all readers share
- ``exporters``: writers, one per format
- ``conversion``: a whole import or export
"""
