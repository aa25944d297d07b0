"""Embedders: real networks tell people apart, wrong files are refused."""

from __future__ import annotations

import numpy as np
import pytest

from ffhqref.core.errors import ConfigError, WeightsError
from ffhqref.core.images import read_rgb
from ffhqref.faces import embed, make_embedder


@pytest.fixture(scope="module")
def faces(sample_folder):
    return np.stack([read_rgb(path) for path in sorted(sample_folder.glob("*.jpg"))[:6]])


def test_dlib_equals_dlib_on_its_own_chip(faces):
    """Our vectors are dlib's, normalised, for the same chip."""
    import dlib

    from ffhqref.faces.crops import crop_faces
    from ffhqref.faces.embedders import _packaged_dlib_model

    embedder = make_embedder("dlib")
    chips = crop_faces(faces, "ffhq_template", embedder)
    network = dlib.face_recognition_model_v1(str(_packaged_dlib_model()))
    wanted = np.array(network.compute_face_descriptor(list(chips), 0))
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    found = embedder(chips)
    assert found.dtype == np.float32
    assert np.abs(found - wanted).max() < 1e-6


def test_edgeface_tells_people_apart(shared):
    import csv

    embedder = make_embedder("onnx", path=shared / "models" / "edgeface_xs.onnx")
    with (shared / "faces" / "london" / "people.csv").open() as stream:
        rows = sorted(csv.DictReader(stream), key=lambda row: row["person"])[:40]
    images = np.stack([read_rgb(shared / "faces" / "london" / row["file"], 512) for row in rows])
    vectors = embed(images, embedder)
    person = np.array([row["person"] for row in rows])
    cosine = vectors @ vectors.T
    same = (person[:, None] == person[None]) & ~np.eye(len(rows), dtype=bool)
    assert cosine[same].min() > cosine[person[:, None] != person[None]].max()


def test_batches_do_not_change_the_vectors(shared, faces):
    path = shared / "models" / "edgeface_xs.onnx"
    one = embed(faces, make_embedder("onnx", path=path, batch_size=1))
    many = embed(faces, make_embedder("onnx", path=path, batch_size=4))
    assert np.abs(one - many).max() < 1e-5


def test_insightface_pack_folder_finds_its_recogniser(shared, faces, tmp_path):
    pack = tmp_path / "buffalo_x"
    pack.mkdir()
    for source, name in (("edgeface_xs.onnx", "w600k_r50.onnx"), ("yunet.onnx", "det_10g.onnx")):
        (pack / name).write_bytes((shared / "models" / source).read_bytes())
    found = embed(faces, make_embedder("insightface", path=pack))
    assert np.array_equal(found, embed(faces, make_embedder("onnx", path=shared / "models" / "edgeface_xs.onnx")))
    (pack / "second.onnx").write_bytes((shared / "models" / "edgeface_xxs.onnx").read_bytes())
    with pytest.raises(WeightsError, match="holds 2 recognition networks"):
        make_embedder("insightface", path=pack)


@pytest.mark.parametrize("name", ["onnx", "insightface"])
def test_what_is_missing_is_said(name, tmp_path):
    with pytest.raises(ConfigError, match=r"embedder\.path="):
        make_embedder(name, path=None)
    with pytest.raises(WeightsError, match="no such file"):
        make_embedder(name, path=tmp_path / "absent.onnx")
    (tmp_path / "bad.onnx").write_bytes(b"not a network")
    with pytest.raises(WeightsError, match="no usable ONNX network"):
        make_embedder(name, path=tmp_path / "bad.onnx")


def test_a_detector_is_no_embedder(shared):
    with pytest.raises(WeightsError, match="expected"):
        make_embedder("onnx", path=shared / "models" / "yunet.onnx")


def test_dlib_refuses_a_foreign_file(tmp_path):
    (tmp_path / "x.dat").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="no dlib face recognition model"):
        make_embedder("dlib", path=tmp_path / "x.dat")


def test_wrong_options_and_names():
    with pytest.raises(ConfigError, match=r"unknown option 'pth'\. Did you mean 'path'"):
        make_embedder("dlib", pth="x")
    with pytest.raises(ConfigError, match="Did you mean 'insightface'"):
        make_embedder("insihgtface")


class Sessions:
    """onnxruntime's sessions as seen from outside, with any providers; ``starts`` are those that work."""

    def __init__(self, monkeypatch, available, starts):
        import onnxruntime

        real, self.asked, sessions = onnxruntime.InferenceSession, [], self

        class Session:
            def __init__(self, path, options, providers):
                sessions.asked = [item if isinstance(item, tuple) else (item, {}) for item in providers]
                self._real = real(path, options, providers=["CPUExecutionProvider"])

            def get_providers(self):
                return [name for name, _ in sessions.asked if name in starts]

            def __getattr__(self, name):
                return getattr(self._real, name)

        monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(available))


TENSORRT, CUDA, CPU = (f"{name}ExecutionProvider" for name in ("Tensorrt", "CUDA", "CPU"))


@pytest.fixture
def colours(tmp_path):
    """A network that takes the mean colours of 28 px fields of a 112 px face."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [
            helper.make_node("AveragePool", ["input"], ["fields"], kernel_shape=[28, 28], strides=[28, 28]),
            helper.make_node("Flatten", ["fields"], ["output"]),
        ],
        "colours",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 48])],
    )
    path = tmp_path / "colours.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


@pytest.mark.parametrize(
    ("device", "asked", "place"),
    [
        ("auto", [(CUDA, {}), (CPU, {})], "cuda"),
        ("cpu", [(CPU, {})], "cpu"),
        ("cuda", [(CUDA, {"device_id": "0"}), (CPU, {})], "cuda"),
        ("cuda:1", [(CUDA, {"device_id": "1"}), (CPU, {})], "cuda:1"),
    ],
)
def test_onnxruntime_works_on_the_device_named(colours, faces, monkeypatch, device, asked, place):
    expected = embed(faces, make_embedder("onnx", path=colours, device="cpu"))
    sessions = Sessions(monkeypatch, [TENSORRT, CUDA, CPU], {CUDA, CPU})
    made = make_embedder("onnx", path=colours, device=device)
    assert sessions.asked == asked
    assert made.device == place
    assert np.array_equal(embed(faces, made), expected)
    assert make_embedder("onnx", path=colours, device="cpu").signature == made.signature


def test_a_device_that_onnxruntime_lacks_is_one_line_or_the_cpu(colours, monkeypatch, caplog):
    sessions = Sessions(monkeypatch, [CPU], {CPU})
    for device, words in (("cuda", "onnxruntime-gpu"), ("cuda:1", "embedder.device=auto"), ("gpu", "expected auto")):
        with pytest.raises(ConfigError, match=words) as error:
            make_embedder("onnx", path=colours, device=device)
        assert "\n" not in str(error.value)
        assert f"device={device}" in str(error.value)
        assert make_embedder("onnx", path=colours, device=device, fall_back=True).device == "cpu"
        assert sessions.asked == [(CPU, {})]
    assert [record.getMessage() for record in caplog.records] == [
        "colours.onnx works on the CPU: onnxruntime has no CUDA here (onnxruntime-gpu brings it)"
    ] * 2
    assert make_embedder("insightface", path=colours).device == "cpu"
    Sessions(monkeypatch, [CUDA, CPU], {CPU})  # there, but a library of CUDA is missing
    with pytest.raises(ConfigError, match="cannot start its CUDA"):
        make_embedder("onnx", path=colours, device="cuda")
    assert make_embedder("onnx", path=colours).device == "cpu"
    assert make_embedder("onnx", path=colours, device="cuda", fall_back=True).device == "cpu"
