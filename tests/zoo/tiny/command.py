"""A program that blurs, run by this interpreter."""

import sys

PROGRAM = """
import sys
from pathlib import Path

import cv2

folder = Path(sys.argv[1])
for path in (folder / "input").iterdir():
    cv2.imwrite(str(folder / "output" / path.name), cv2.blur(cv2.imread(str(path)), (3, 3)))
"""


def options(folder):
    (folder / "blur.py").write_text(PROGRAM)
    recipe = {
        "lq": "input/{id}.png",
        "commands": [["{python}", "blur.py", "{run}"]],
        "output": "output/{id}.png",
        "info": {"summary": "3x3 mean", "input_size": None},
    }
    return {"recipe": recipe, "checkout": folder, "python": sys.executable}
