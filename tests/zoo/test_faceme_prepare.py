"""Preparation of FaceMe's training: features of real images, and rows for those that have none."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ffhqref.core.errors import ConfigError
from ffhqref.core.hashing import sha256_file
from ffhqref.core.images import read_rgb, save_png
from ffhqref.training.faceme.features import read_feature
from ffhqref.training.faceme.lists import feature_of
from ffhqref.training.faceme.small import write_small_photomaker
from ffhqref.training.faceme.stage import PrepareRow, PrepareStage
from ffhqref.zoo.faceme.clip import clip_pixels, cut_face, load_identity_encoder
from ffhqref.zoo.faceme.config import FaceMeConfig
from ffhqref.zoo.faceme.faces import make_finder

CONFIG = {
    "mix": {"embed_dim": 24, "id_dim": 128},
    "id_encoder": {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "patch_size": 14, "image_size": 28, "projection_dim": 8, "projection_dim_2": 16,
    },
}  # fmt: skip


@pytest.fixture
def stage(tmp_path) -> PrepareStage:
    tower = write_small_photomaker(tmp_path / "photomaker.bin", FaceMeConfig.load(CONFIG).id_encoder)
    return PrepareStage(tmp_path, {"name": "aligned", "embedder": "dlib"}, tower, CONFIG)


def row(path, name):
    sha256 = sha256_file(path) if path.is_file() else "0"
    return PrepareRow(name, "own", "", str(path), sha256, "FFHQ_EMB")


def test_features_are_those_of_the_picture(stage, tmp_path, sample_folder):
    names = ["00000", "00001", "00006"]
    rows = [row(sample_folder / f"{name}.jpg", name) for name in names]
    (tmp_path / "bad.png").write_bytes(b"no image")
    rows[1:1] = [row(tmp_path / "bad.png", "bad"), row(tmp_path / "absent.png", "absent")]
    stage.setup()
    results = stage.process(rows)
    assert [result.error is None for result in results] == [True, False, False, True, True]
    assert "bad.png" in results[1].error
    assert not list((tmp_path / "FFHQ_EMB").rglob("bad.npy"))
    finder = make_finder({"name": "aligned", "embedder": "dlib"})
    tower = load_identity_encoder(tmp_path / "photomaker.bin", FaceMeConfig.load(CONFIG).id_encoder)
    for name in names:
        picture = read_rgb(sample_folder / f"{name}.jpg")
        files = feature_of(tmp_path / "FFHQ_EMB", name)
        face = finder(picture)
        vector = read_feature(files.identity)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
        assert vector @ face.embedding / np.linalg.norm(face.embedding) == pytest.approx(1, abs=1e-6)
        with torch.no_grad():
            wanted = tower(clip_pixels(cut_face(picture, face.box), 28)[None])[0].numpy()
        np.testing.assert_allclose(read_feature(files.clip), wanted, atol=1e-6)
    good = [(one, result) for one, result in zip(rows, results, strict=True) if result.error is None]
    assert all(stage.intact(*pair) for pair in good)
    (tmp_path / "FFHQ_EMB" / "clip_emb" / "00001.npy").write_bytes(b"changed")
    assert [stage.intact(*pair) for pair in good] == [True, False, True]


def test_a_picture_without_a_face_is_a_row(stage, tmp_path):
    class Nobody:
        signature = "nobody"

        def __call__(self, picture):
            return None

    save_png(tmp_path / "x.png", np.zeros((64, 64, 3), np.uint8))
    stage.setup()
    stage._finder = Nobody()
    (result,) = stage.process([row(tmp_path / "x.png", "x")])
    assert result.error == "no face found by nobody"
    assert result.identity_sha256 is None


def test_embedders_of_another_width_are_refused(tmp_path):
    other = {**CONFIG, "mix": {"embed_dim": 24, "id_dim": 512}}
    tower = write_small_photomaker(tmp_path / "photomaker.bin", FaceMeConfig.load(CONFIG).id_encoder)
    with pytest.raises(ConfigError, match="128 channels"):
        PrepareStage(tmp_path, {"name": "aligned", "embedder": "dlib"}, tower, other)
    for wrong in ({"name": "alined"}, {}, {"name": "aligned", "embedder": "dlib", "nothing": 1}):
        with pytest.raises(ConfigError):
            make_finder(wrong)
