"""What is tried on a model before it is used, and remembered of it."""
