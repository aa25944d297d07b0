"""Arc2Face (arXiv:2403.11641): a picture of a person from an ArcFace vector, its pose from a normal map."""
