"""What enters without alignment is square; what is small is counted."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ffhqref.cases.lq import ImportStage, import_rows
from ffhqref.core.images import read_rgb
from ffhqref.datasets.stage import ImageStage, describe_small, file_rows

SIZES = {"aligned": (512, 512), "photograph": (1600, 1067), "portrait": (178, 218), "thumbnail": (128, 128)}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    root.mkdir()
    for name, size in SIZES.items():
        Image.effect_noise(size, 40).convert("RGB").save(root / f"{name}.png")
    return root


def test_an_aligned_data_set_has_square_images_only(folder):
    files = {name: f"{name}.png" for name in SIZES}
    found = {result.image_id: result for result in ImageStage(folder).process(file_rows(folder, files))}
    assert [name for name, result in found.items() if result.error is None] == ["aligned", "thumbnail"]
    assert found["photograph"].error.startswith("1600x1067 pixels, an aligned face is square")
    assert "dataset.aligned=false" in found["portrait"].error
    assert "\n" not in found["portrait"].error
    widths = {name: result.width for name, result in found.items() if result.error is None}
    assert describe_small(widths, "images") == [
        "1 of 2 images are smaller than 512x512 and enlarged, thumbnail from 128x128"
    ]
    assert describe_small({"aligned": 512}, "images") == []


def test_low_quality_images_and_references_from_outside_are_square(folder, tmp_path):
    rows = import_rows("mine", folder, None).rows
    found = dict(zip(rows, ImportStage(tmp_path / "workspace").process(list(rows.values())), strict=True))
    assert [name for name, result in found.items() if result.error is None] == ["aligned", "thumbnail"]
    assert "178x218 pixels" in found["portrait"].error
    assert (found["thumbnail"].width, found["aligned"].width) == (128, 512)
    made = tmp_path / "workspace" / found["thumbnail"].path
    assert np.array_equal(read_rgb(made), read_rgb(folder / "thumbnail.png", 512))
