"""The torch half of the program that the scripts share."""
