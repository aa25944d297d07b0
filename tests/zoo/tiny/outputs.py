"""A folder of another method's outputs."""


def options(folder):
    return {"path": folder, "info": {"licence": "MIT", "summary": "their images"}}
