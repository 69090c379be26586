"""From images of any kind to the pixels that a model reads."""
