"""Texts with the class of each: labels read as a model's classes, rows out of files, and data sets of them."""
