"""AdaIN, which has the more to go wrong on images of one colour."""


def options(folder):
    return {"of": "tv", "how": "adain"}
