"""Recall and precision of finding copies of one photograph, on made-up copies and on pairs of one person.

    python benchmarks/copies.py --faces shared/faces/london people.csv --save benchmarks/results/copies.json

The embedded sample is always measured. A folder's CSV has the columns file and person.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import json
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ffhqref.core.conf import SAMPLE_ROOT
from ffhqref.core.images import read_rgb, resize
from ffhqref.reference_sets.registration import CORRELATION, Photograph, likeness

Image8 = NDArray[np.uint8]


def jpeg(image: Image8, quality: int = 85) -> Image8:
    """Return an image through JPEG."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


def crop(image: Image8, share: float) -> Image8:
    """Cut a share off, more at the left and the top, and enlarge the rest."""
    size = round(512 * (1 - share))
    left, top = round(0.7 * (512 - size)), round(0.6 * (512 - size))
    return resize(np.ascontiguousarray(image[top : top + size, left : left + size]), 512)


def turned(image: Image8, degrees: float) -> Image8:
    """Turn an image about its centre."""
    matrix = cv2.getRotationMatrix2D((256, 256), degrees, 1.03)
    return cv2.warpAffine(image, matrix, (512, 512), borderMode=cv2.BORDER_REFLECT)


def grey(image: Image8) -> Image8:
    """Take the colour away."""
    return np.asarray(Image.fromarray(image).convert("L").convert("RGB"))


def levels(image: Image8) -> Image8:
    """Make an image brighter and warmer."""
    return np.clip(255 * (image / 255) ** 0.75 * (1.12, 1.0, 0.85), 0, 255).astype(np.uint8)


COPIES = {
    "equal": lambda image: image.copy(),
    "JPEG, quality 90": lambda image: jpeg(image, 90),
    "JPEG, quality 30": lambda image: jpeg(image, 30),
    "JPEG, quality 10": lambda image: jpeg(image, 10),
    "256 px": lambda image: jpeg(resize(image, 256)),
    "128 px": lambda image: jpeg(resize(image, 128)),
    "64 px": lambda image: jpeg(resize(image, 64)),
    "grey": lambda image: jpeg(grey(image)),
    "brighter and warmer": lambda image: jpeg(levels(image)),
    "mirrored": lambda image: jpeg(np.ascontiguousarray(image[:, ::-1])),
    "turned by 3 degrees": lambda image: jpeg(turned(image, 3)),
    "cropped by 5 %": lambda image: jpeg(crop(image, 0.05)),
    "cropped by 15 %": lambda image: jpeg(crop(image, 0.15)),
    "cropped by 30 %": lambda image: jpeg(crop(image, 0.30)),
    "mirrored, cropped by 10 %, grey, 128 px": lambda image: jpeg(
        resize(np.ascontiguousarray(crop(grey(image), 0.1)[:, ::-1]), 128), 60
    ),
}
"""Made-up copies of an image, uint8 RGB [512, 512, 3]."""


def square(path: Path) -> Image8:
    """Read an image, cut to a square."""
    image = read_rgb(path)
    size = min(image.shape[:2])
    top, left = (image.shape[0] - size) // 3, (image.shape[1] - size) // 2
    return resize(np.ascontiguousarray(image[top : top + size, left : left + size]), 512)


def people(folder: Path, table: str, column: str) -> dict[str, list[Path]]:
    """Return the images of each person; images that are known to be copies are left out."""
    found: dict[str, list[Path]] = {}
    with (folder / table).open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if not row.get("copy_of"):
                found.setdefault(row[column], []).append(folder / row["file"])
    return found


def measure(groups: dict[str, list[Path]], copied: int) -> dict[str, object]:
    """Return recall by kind of copy, and the pairs of two photographs of one person that are taken for one."""
    files = [path for group in groups.values() for path in group]
    known = {path: Photograph.of(square(path)) for path in files}
    pairs = [pair for group in groups.values() for pair in itertools.combinations(group, 2)]
    values = {
        f"{a.name} {b.name}": max(likeness(known[a], known[b]), likeness(known[a], known[b].mirrored)) for a, b in pairs
    }
    chosen = [files[index] for index in np.random.default_rng(0).permutation(len(files))[:copied]]
    recall = {}
    for kind, copy in COPIES.items():
        made = [(known[path], Photograph.of(copy(square(path)))) for path in chosen]
        found = [max(likeness(a, b), likeness(a, b.mirrored)) >= CORRELATION for a, b in made]
        recall[kind] = float(np.mean(found))
    worst = sorted(values.items(), key=lambda item: -item[1])
    taken = [name for name, value in worst if value >= CORRELATION]
    return {"copies_of": len(chosen), "recall": recall, "pairs": len(pairs), "taken": taken, "highest": worst[:10]}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", nargs=2, action="append", default=[], metavar=("FOLDER", "CSV"))
    parser.add_argument("--copied", type=int, default=60, help="images that copies are made of")
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    found = {"sample": measure(people(SAMPLE_ROOT, "metadata.csv", "identity"), options.copied)}
    for folder, table in options.faces:
        found[Path(folder).name] = measure(people(Path(folder), table, "person"), options.copied)
    print(json.dumps(found, indent=1))
    if options.save:
        options.save.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
