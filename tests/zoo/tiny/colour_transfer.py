"""AdaIN, which has the more to go wrong on pictures of one colour."""


def options(folder):
    return {"of": "tv", "how": "adain"}
