"""Real weights from a registry package; fewer threads."""


def options(folder):
    return {"threads": 2}
