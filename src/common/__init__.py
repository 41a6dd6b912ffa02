"""What every package may use: errors, files and limits.

- ``errors``: bad input becomes one line and exit code 2
- ``files``: files that are replaced whole, and JSON
- ``limits``: the most pixels that are decoded
"""
