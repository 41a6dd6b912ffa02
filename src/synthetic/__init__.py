"""Synthetic H&E-like tissue with its ground truth.

- ``tissue``: how cells and what lies around them look
- ``placement``: where cells lie
- ``dataset``: a data set in the homework's layout
"""
