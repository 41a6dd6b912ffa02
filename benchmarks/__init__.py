"""What the program promises in time and memory, measured against the plain way: ``python -m benchmarks``."""
