"""Libraries that read weights by path get the very file that was hashed, and no other after it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from ffhqref.core.errors import WeightsError
from ffhqref.core.hashing import sha256_file
from ffhqref.faces import make_embedder
from ffhqref.faces.ages import make_age_model
from ffhqref.faces.detect import make_detector
from ffhqref.faces.stage import AlignStage, EmbedStage
from ffhqref.weights.files import Weights
from ffhqref.weights.tensors import held, holding, read_bytes

from ..onnx_networks import genderage


def swap(path: Path, by: bytes = b"another file") -> None:
    """Put another file under a name, as a download or a neighbour does."""
    other = path.with_name("other")
    other.write_bytes(by)
    other.replace(path)


def test_a_held_file_is_the_hashed_one_whatever_its_name_leads_to_meanwhile(tmp_path):
    file = tmp_path / "w.onnx"
    file.write_bytes(b"first")
    digest = sha256_file(file)

    def read():
        with held(file) as found:
            swap(file)
            assert (found.sha256, found.name.read_bytes(), found.name.suffix) == (digest, b"first", ".onnx")
            assert os.listdir(found.name.parent) == [found.name.name]  # noqa: PTH208

    with pytest.raises(WeightsError, match="changed while it was read"):
        read()


def test_a_file_that_is_changed_in_place_while_it_is_read_is_refused(tmp_path):
    file = tmp_path / "w.dat"
    file.write_bytes(b"first")
    with pytest.raises(WeightsError, match="changed while it was read"), held(file):
        file.write_bytes(b"other")


def test_a_file_that_was_hashed_before_is_held_to_that_hash(tmp_path):
    file = tmp_path / "w.dat"
    file.write_bytes(b"first")
    known = Weights("w", "w.dat", file, sha256_file(file), None)
    swap(file)
    with pytest.raises(WeightsError, match="changed since it was checked"), held(known):
        pass
    with holding([known]), pytest.raises(WeightsError, match="changed since it was checked"):
        read_bytes(file)


def networks(shared: Path, folder: Path) -> dict[str, tuple[Path, object]]:
    """Return every built-in reader of a file of the user's, with a good file for it."""
    yunet, edgeface = folder / "yunet.onnx", folder / "edgeface.onnx"
    shutil.copy(shared / "models" / "yunet.onnx", yunet)
    shutil.copy(shared / "models" / "edgeface_xxs.onnx", edgeface)
    return {
        "yunet": (yunet, lambda: make_detector("yunet", path=yunet)),
        "onnx": (edgeface, lambda: make_embedder("onnx", path=edgeface)),
        "age": (genderage(folder / "genderage.onnx"), lambda: make_age_model("insightface", path=folder)),
        "dlib": (_packaged("dlib_face_recognition_resnet_model_v1.dat"), lambda: make_embedder("dlib")),
        "dlib68": (_packaged("shape_predictor_68_face_landmarks.dat"), lambda: make_detector("dlib68")),
    }


def _packaged(name: str) -> Path:
    import importlib.util

    spec = importlib.util.find_spec("face_recognition_models")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "models" / name


@pytest.mark.parametrize("name", ["yunet", "onnx", "age", "dlib", "dlib68"])
def test_the_signature_is_of_the_file_that_was_opened_and_it_is_opened_once(shared, tmp_path, monkeypatch, name):
    import builtins

    file, make = networks(shared, tmp_path)[name]
    digest, opened, real = sha256_file(file), [], builtins.open

    def counted(path, *arguments, **named):
        if isinstance(path, (str, Path)) and Path(path) == file:
            opened.append(path)
        return real(path, *arguments, **named)

    monkeypatch.setattr(builtins, "open", counted)
    assert digest[:12] in make().signature
    assert len(opened) == 1


@pytest.mark.parametrize("kind", ["embed", "align"])
def test_a_worker_refuses_a_network_that_was_swapped_after_the_run_began(shared, tmp_path, kind):
    names = ("edgeface_xxs.onnx", "edgeface_xs.onnx") if kind == "embed" else ("yunet.onnx", "yunet.onnx")
    file = tmp_path / "network.onnx"
    shutil.copy(shared / "models" / names[0], file)
    options = {"path": str(file)}
    stage: EmbedStage | AlignStage
    if kind == "embed":
        stage = EmbedStage(tmp_path, "onnx", options, "ffhq_template")
    else:
        stage = AlignStage(tmp_path, tmp_path / "out", "yunet", options)
    travelled = object.__new__(type(stage))
    travelled.__dict__.update(stage.__getstate__())
    travelled.setup()
    travelled.__dict__.update(stage.__getstate__())
    swap(file, (shared / "models" / names[1]).read_bytes() + (b"" if kind == "embed" else b"\x42\x00"))
    with pytest.raises(WeightsError, match="changed since the run began"):
        travelled.setup()
