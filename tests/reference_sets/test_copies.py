"""One photograph under two names is found by its pixels; two photographs are not taken for one."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ffhqref.cases.compare import CompareRow, CompareStage
from ffhqref.core.hashing import sha256_file
from ffhqref.core.images import read_rgb, save_png
from ffhqref.datasets import open_dataset
from ffhqref.reference_sets.build import build_reference_set
from ffhqref.reference_sets.copies import CopyRow, CopyStage, are_alike, describe_copies, find_copies
from ffhqref.reference_sets.options import BuildConfig
from ffhqref.reference_sets.references import Exclusions
from ffhqref.reference_sets.registration import Photograph, are_one_photograph


@pytest.fixture(scope="module")
def faces():
    data = open_dataset("sample")
    people: dict[str, list[str]] = {}
    for image_id, person in data.truth.items():
        people.setdefault(person, []).append(image_id)
    (first, second, *_), (other, more, *_) = [images for images in people.values() if len(images) > 1][:2]
    chosen = {"a": first, "b": second, "o": other, "p": more}
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


def changed(image, *, mirrored=False, cropped=0.0, grey=False, size=512, quality=85):
    """Return a copy as people make them, uint8 RGB [512, 512, 3]."""
    cut = round(512 * cropped)
    image = Image.fromarray(image[cut // 3 : 512 - cut + cut // 3, cut // 2 : 512 - cut + cut // 2])
    image = image.convert("L").convert("RGB") if grey else image
    image = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC).resize((512, 512)))
    return jpeg(image[:, ::-1] if mirrored else image, quality)


REGISTERED = {
    "re-encoded": {"quality": 20},
    "small": {"size": 128},
    "grey": {"grey": True},
    "mirrored": {"mirrored": True},
    "cropped": {"cropped": 0.25},
    "all of it": {"mirrored": True, "cropped": 0.1, "grey": True, "size": 160},
}


@pytest.mark.parametrize("kind", REGISTERED)
def test_copies_are_registered_and_other_photographs_are_not(faces, kind):
    """Recall and precision over many images: benchmarks/copies.py."""
    same, other = (Photograph.of(changed(faces[name], **REGISTERED[kind])) for name in "ab")
    original = Photograph.of(faces["a"])
    assert are_one_photograph(original, same)
    assert are_one_photograph(same, original)
    assert not are_one_photograph(original, other)  # the same person, the same hair


def test_images_without_structure_are_no_copies():
    flat, noise = np.full((512, 512, 3), 128, np.uint8), np.random.default_rng(0).integers(0, 255, (2, 512, 512, 3))
    for one, other in ((flat, flat), (flat, noise[0]), tuple(noise)):
        assert not are_one_photograph(*(Photograph.of(image.astype(np.uint8)) for image in (one, other)))


@pytest.fixture(scope="module")
def people(faces, tmp_path_factory):
    """Two people; of the first there are two photographs, a grey copy and an equal file. Each is in val or test."""
    folder = tmp_path_factory.mktemp("people")
    for name, image in {**faces, "copy": changed(faces["a"], grey=True)}.items():
        save_png(folder / f"{name}.png", image)
    shutil.copy(folder / "b.png", folder / "same.png")
    near = {"a": 0.0, "b": 0.3, "copy": 0.15, "same": 0.45, "o": 3.0, "p": 3.2}
    vectors = np.array([[np.cos(angle), np.sin(angle)] for angle in near.values()])
    images = pd.DataFrame({"image_id": list(near), "error": None})
    images["path"] = images["image_id"] + ".png"
    images["sha256"] = [sha256_file(folder / path) for path in images["path"]]
    return folder, images, list(near), vectors


def build(people, **more):
    config = BuildConfig(max_distance=0.2, min_distance=0.001, test=1, val=1, min_references=1)
    return build_reference_set(people[2], people[3], config, **more)


def lists(built):
    return {(row.target_id, row.reference_id) for row in built.references.itertuples()}


def found(people, built):
    folder, images, *_ = people
    return find_copies(built, images, lambda path: folder / path, lambda stage, rows: stage.process(rows))


def test_a_copy_of_a_target_is_found_told_and_left_out(people):
    built = build(people)
    copies = found(people, built)
    assert copies == [("a", "copy"), ("b", "same")]
    assert {("a", "copy"), ("same", "b")} <= lists(built)
    told, warned = describe_copies(copies, built, left_out=False)
    assert told.startswith("copies: 2 of 6 images are copies of another (re-encoded, ")
    assert told.endswith("first a ~ copy")
    assert "4 references in val and test are copies of their targets, first 'copy' of 'a'" in warned

    without = build(people, exclusions=Exclusions().with_pairs(copies))
    assert lists(built) - lists(without) == {("a", "copy"), ("copy", "a"), ("b", "same"), ("same", "b")}
    (line,) = describe_copies(copies, without, left_out=True)
    assert "no references of each other in val and test, see build.drop_copies" in line


def test_without_copies_nothing_is_told(people):
    folder, images, _, vectors = people
    few = images["image_id"].isin(["a", "b", "o", "p"])
    built = build((folder, images[few], ["a", "b", "o", "p"], vectors[[0, 1, 4, 5]]))
    assert found((folder, images[few]), built) == []
    assert describe_copies([], built, left_out=True) == []


def test_an_image_that_cannot_be_read_is_no_copy(people, tmp_path):
    row = CopyRow(((str(people[0] / "a.png"), "1"), (str(tmp_path / "none.png"), "2")), ((0, 1),))
    assert CopyStage().process([row])[0].copies == [False]


def test_large_identities_are_cut_into_parts(people, monkeypatch):
    monkeypatch.setattr("ffhqref.reference_sets.copies.PAIRS_AT_ONCE", 2)
    assert found(people, build(people)) == [("a", "copy"), ("b", "same")]


def test_pairs_are_compared_by_their_pixels(faces, tmp_path):
    save_png(tmp_path / "a.png", faces["a"])
    shutil.copy(tmp_path / "a.png", tmp_path / "again.png")
    save_png(tmp_path / "jpeg.png", jpeg(faces["a"], 60))
    save_png(tmp_path / "o.png", faces["o"])
    names = ("a", "again", "jpeg", "o")
    sha256 = {"none": "0" * 64, **{name: sha256_file(tmp_path / f"{name}.png") for name in names}}
    rows = [
        CompareRow("x", f"{tmp_path}/a.png", sha256["a"], f"{tmp_path}/{name}.png", sha256[name])
        for name in ("again", "jpeg", "o", "none")
    ]
    changed = replace(rows[0], second_sha256=sha256["o"])  # another image than was hashed is not looked at
    found = [(result.equal, result.alike) for result in CompareStage().process([*rows, changed])]
    assert found == [(True, True), (False, True), (False, False), (False, False), (False, False)]
