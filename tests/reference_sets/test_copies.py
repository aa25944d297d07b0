"""One photograph under two names is found by its pixels; two photographs are not taken for one."""

from __future__ import annotations

import io
import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ffhqref.cases.compare import CompareRow, CompareStage
from ffhqref.core.images import read_rgb, save_png
from ffhqref.datasets import open_dataset
from ffhqref.reference_sets.copies import are_alike, describe_copies


@pytest.fixture(scope="module")
def faces():
    data = open_dataset("sample")
    people: dict[str, list[str]] = {}
    for image_id, person in data.truth.items():
        people.setdefault(person, []).append(image_id)
    (first, second, *_), (other, *_) = [images for images in people.values() if len(images) > 1][:2]
    chosen = {"a": first, "b": second, "o": other}
    return {name: read_rgb(data.root / data.files[image_id], 512) for name, image_id in chosen.items()}


def jpeg(image, quality):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=quality)
    return np.asarray(Image.open(stream))


COPIES = {
    "equal": lambda image: image.copy(),
    "re-encoded": lambda image: jpeg(image, 30),
    "resized": lambda image: np.asarray(Image.fromarray(image).resize((200, 200), Image.Resampling.LANCZOS)),
    "brighter": lambda image: np.clip(image.astype(int) + 4, 0, 255).astype(np.uint8),
}


@pytest.mark.parametrize("kind", COPIES)
def test_copies_are_alike_and_other_images_are_not(faces, kind):
    assert are_alike(faces["a"], COPIES[kind](faces["a"]))
    assert not are_alike(faces["a"], COPIES[kind](faces["b"]))  # the same person
    assert not are_alike(faces["a"], COPIES[kind](faces["o"]))


@pytest.mark.parametrize("kind", COPIES)
def test_a_target_among_its_references_is_told(faces, kind, tmp_path):
    for name, image in {"t": faces["a"], "copy": COPIES[kind](faces["a"]), "r": faces["b"]}.items():
        save_png(tmp_path / f"{name}.png", image)
    images = pd.DataFrame(
        {"image_id": ["t", "copy", "r"], "error": None, "sha256": ["1", "1" if kind == "equal" else "2", "3"]}
    )
    images["path"] = images["image_id"] + ".png"
    references = pd.DataFrame(
        {"target_id": "t", "reference_id": ["copy", "r"], "split": "test", "distance": [0.001, 0.03]}
    )
    (line,) = describe_copies(references, images, lambda path: tmp_path / path, 0.048)
    assert "1 references in val and test are copies of their targets, first 'copy' of 't'" in line
    references["reference_id"] = ["r", "r"]
    assert describe_copies(references, images, lambda path: tmp_path / path, 0.048) == []


def test_pairs_are_compared_by_their_pixels(faces, tmp_path):
    save_png(tmp_path / "a.png", faces["a"])
    shutil.copy(tmp_path / "a.png", tmp_path / "again.png")
    save_png(tmp_path / "jpeg.png", jpeg(faces["a"], 60))
    save_png(tmp_path / "o.png", faces["o"])
    rows = [
        CompareRow("x", f"{tmp_path}/a.png", "1", f"{tmp_path}/{name}.png", name)
        for name in ("again", "jpeg", "o", "none")
    ]
    found = [(result.equal, result.alike) for result in CompareStage().process(rows)]
    assert found == [(True, True), (False, True), (False, False), (False, False)]
