"""FaceMe's training: features and lists in the published formats."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from ffhqref.core.errors import ConfigError, DatasetError
from ffhqref.training.faceme.features import read_feature, write_feature
from ffhqref.training.faceme.lists import (
    feature_of,
    list_samples,
    read_samples,
    write_samples,
)


def test_features_of_numpy_and_of_torch_are_read(tmp_path):
    """The published preparation writes NumPy files, its training reads torch files, both under the name .npy."""
    vector = np.random.default_rng(0).standard_normal(12).astype(np.float32)
    write_feature(tmp_path / "ours.npy", vector)
    assert np.load(tmp_path / "ours.npy").shape == (1, 12)
    np.save(tmp_path / "theirs.npy", vector[None])
    torch.save(torch.from_numpy(vector[None]), tmp_path / "torch.npy")
    torch.save(torch.from_numpy(vector), tmp_path / "old.npy", _use_new_zipfile_serialization=False)
    for name in ("ours", "theirs", "torch", "old"):
        assert np.array_equal(read_feature(tmp_path / f"{name}.npy"), vector), name


@pytest.mark.parametrize("kind", ["absent", "empty", "cut", "text", "nan", "matrix", "pickle", "scalar"])
def test_what_is_no_feature_is_refused(tmp_path, kind):
    path = tmp_path / "x.npy"
    write_feature(path, np.ones(64))
    whole = path.read_bytes()
    if kind == "absent":
        path.unlink()
    elif kind == "pickle":
        torch.save({"__import__": [object]}, path)
    elif kind in ("nan", "matrix", "scalar"):
        value = {"nan": [np.nan, 1.0], "matrix": np.ones((2, 3)), "scalar": np.float32(1)}[kind]
        np.save(path, np.asarray(value, np.float32))
    else:
        path.write_bytes({"empty": b"", "cut": whole[:-40], "text": b"hello"}[kind])
    with pytest.raises(DatasetError, match=r"x\.npy") as caught:
        read_feature(path)
    assert "\n" not in str(caught.value)


def test_lists_have_the_published_form_and_come_back(world):
    path = world.folder / "train.json"
    write_samples(path, world.samples)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert set(rows[0]) == {"target", "target_emb", "ref_emb"}
    assert rows[0]["target_emb"] == ["own/id_emb/00000.npy", "own/clip_emb/00000.npy"]
    assert [len(part) for part in rows[1]["ref_emb"]] == [2, 2]
    assert rows[1]["ref_emb"][1][0] == "ref/clip_emb/00001/0_0.npy"
    assert read_samples(path) == world.samples
    assert read_samples(path, world.folder) == world.samples
    path.write_text(path.read_text().replace("own/", "../own/", 1))
    with pytest.raises(DatasetError, match="leaves the folder"):
        read_samples(path, world.folder)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"target": "a.png"}',
        '{"target": "a.png", "target_emb": ["a.npy"], "ref_emb": [[], []]}',
        '{"target": "a.png", "target_emb": ["i/a.npy", "c/a.npy"], "ref_emb": [["i/b.npy"], []]}',
        '{"target": "a.png", "target_emb": ["i/a.npy", "c/a.npy"], "ref_emb": [["i/b.npy"], ["c/c.npy"]]}',
        '{"target": 3, "target_emb": ["i/a.npy", "c/a.npy"], "ref_emb": [[], []]}',
    ],
)
def test_lists_of_another_form_are_refused(tmp_path, line):
    path = tmp_path / "train.json"
    good = '{"target": "a.png", "target_emb": ["i/a.npy", "c/a.npy"], "ref_emb": [[], []]}'
    path.write_text(f"{good}\n{line}\n")
    with pytest.raises(DatasetError, match="line 2"):
        read_samples(path)
    path.write_text("")
    with pytest.raises(DatasetError, match="nothing to train on"):
        read_samples(path)


def test_references_synthetic_real_or_both(world):
    pictures = {name: f"{name}.png" for name in ("00000", "00001", "00002", "99999")}
    folders = {"features": world.folder / "own", "synthetic": world.folder / "ref"}
    real = {"00000": ["00001", "99999"], "00001": ["00000"]}
    made, missing = list_samples(pictures, references="synthetic", **folders)
    assert [len(item.references) for item in made] == [5, 2, 3]
    assert [item.image_id for item in missing] == ["99999"]
    made, missing = list_samples(pictures, references="real", features=world.folder / "own", real=real)
    assert made[0].references == (feature_of(world.folder / "own", "00001"),)  # 99999 has no features
    assert [item.image_id for item in missing] == ["00002", "99999"]
    assert all(item.reason for item in missing)
    made, missing = list_samples(pictures, references="both", real=real, **folders)
    assert [len(item.references) for item in made] == [6, 3, 3]
    for references in ("real", "both", "none"):
        with pytest.raises(ConfigError, match=references):
            list_samples(pictures, references=references, **folders)
