"""The page Ablate: its computation, its figures and its comparison of methods."""
