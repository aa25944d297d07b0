"""DifFace."""
