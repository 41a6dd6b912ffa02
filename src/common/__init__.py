"""What every package may use: errors, files and limits.

- ``errors``: bad input becomes one line and exit code 2
- ``files``: files that are replaced whole, and JSON
- ``progress``: how far long work has come: a bar, or lines in a log file
- ``values``: numbers and names as other programs write them
- ``limits``: the most pixels that are decoded
- ``memory``: freed memory goes back to the system, and threads share a heap
"""
