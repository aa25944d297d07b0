"""Tiles that do not divide the image."""


def options(folder):
    return {"of": "bicubic", "size": 24, "overlap": 6}
