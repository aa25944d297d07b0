"""Arc2Face (arXiv:2403.11641): an image of a person from an ArcFace vector, its pose from a normal map."""
