"""A cleaner before an enlarger."""


def options(folder):
    return {"steps": [{"name": "bicubic", "factor": 2}, "tv", {"name": "bicubic", "factor": 3}]}
