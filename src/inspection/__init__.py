"""Inspection of a data folder before training.

- ``faults``: what is wrong with its files
- ``facts``: what is counted of its images and cells
- ``advice``: settings that suit it
- ``summary``: facts and advice as text
- ``manifest``: digests by which changes show
- ``pixels``: a digest of what the files show, whatever their encoding
- ``page``: all of it as a page
"""
