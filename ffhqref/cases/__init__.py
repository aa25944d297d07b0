"""The cases of a benchmark: which targets, with which low-quality image and references."""
