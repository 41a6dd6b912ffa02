"""The torch-free half of the program: files, geometry, scores and pictures."""
