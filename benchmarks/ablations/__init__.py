"""Variants of a recipe, trained for the same budget and compared: the command, its log and what it showed."""
