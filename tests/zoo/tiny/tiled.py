"""Tiles that do not divide the picture."""


def options(folder):
    return {"of": "bicubic", "size": 24, "overlap": 6}
