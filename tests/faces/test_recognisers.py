"""AdaFace and FaceNet: equal to an independent computation on random weights, in every published layout of files."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ffhqref.core.errors import ConfigError, WeightsError
from ffhqref.faces import make_embedder
from ffhqref.faces.recogniser_networks import IRESNETS, InceptionResNetV1, IResNet

LAYERS = {18: 8, 50: 24, 101: 49}
"""Blocks of each network."""

FACENET_TENSORS = 714
FACENET = [[0.042935, -0.017328, 0.028279, -0.024539], [0.034953, -0.019285, 0.042465, -0.016989]]
"""First numbers of the vectors of `faces` under `filled` weights; in BGR they are up to 0.025 off."""


def filled(module, seed=3):
    """Fill a network with numbers that keep its values near 1, in the alphabetical order of names."""
    generator = torch.Generator().manual_seed(seed)
    state = module.state_dict()
    for name in sorted(state):
        value = state[name]
        if name.endswith("running_var"):
            state[name] = torch.rand(value.shape, generator=generator) + 0.5
        elif value.is_floating_point():
            matrix = value.dim() > 1
            spread = math.sqrt(2 / value[0].numel()) if matrix else 0.1
            state[name] = torch.randn(value.shape, generator=generator) * spread
            if not matrix and name.endswith("weight"):
                state[name] += 1
    module.load_state_dict(state)
    return module.eval()


@pytest.fixture(scope="module")
def ir18():
    return filled(IResNet(IRESNETS[LAYERS[18]]))


def norm(state, name, x):
    mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
    return F.batch_norm(x, mean, var, state.get(f"{name}.weight"), state.get(f"{name}.bias"))


def transcribed(state, x):
    """The published network once more, by its names alone: what `res_layer` and `shortcut_layer` do is read here."""
    x = norm(state, "input_layer.1", F.conv2d(x, state["input_layer.0.weight"], padding=1))
    x = F.prelu(x, state["input_layer.2.weight"])
    for number in range(sum(name.endswith("res_layer.0.weight") for name in state)):
        at = f"body.{number}"
        stride = 2 if number in (0, 2, 4, 6) else 1  # of IR-18: the first of each two
        inner = F.conv2d(norm(state, f"{at}.res_layer.0", x), state[f"{at}.res_layer.1.weight"], padding=1)
        inner = F.prelu(norm(state, f"{at}.res_layer.2", inner), state[f"{at}.res_layer.3.weight"])
        inner = F.conv2d(inner, state[f"{at}.res_layer.4.weight"], stride=stride, padding=1)
        beside = x[:, :, ::stride, ::stride]
        if f"{at}.shortcut_layer.0.weight" in state:
            beside = norm(state, f"{at}.shortcut_layer.1", F.conv2d(beside, state[f"{at}.shortcut_layer.0.weight"]))
        x = norm(state, f"{at}.res_layer.5", inner) + beside
    x = norm(state, "output_layer.0", x).flatten(1)
    return norm(state, "output_layer.4", F.linear(x, state["output_layer.3.weight"], state["output_layer.3.bias"]))


def faces(size):
    """Return two images: red grows to the right, green downwards, blue is 200 or 40."""
    ramp = np.linspace(0, 255, size).astype(np.uint8)
    red, green = np.meshgrid(ramp, ramp)
    return np.stack([np.dstack([red, green, np.full_like(red, blue)]) for blue in (200, 40)])


@pytest.mark.parametrize(("layers", "tensors", "millions"), [(50, 467, 43.6), (101, 917, 65.1)])
def test_networks_have_the_published_size(layers, tensors, millions):
    """917 tensors is what CVLface's file of IR-101 holds; the parameters are those of its authors' table."""
    with torch.device("meta"):
        network = IResNet(IRESNETS[LAYERS[layers]])
    assert len(network.state_dict()) == tensors
    assert sum(item.numel() for item in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.1)


def test_adaface_takes_bgr_in_each_layout(ir18, tmp_path):
    """All published layouts give the vectors of the transcription on BGR in -1..1, and an ONNX copy does too."""
    from safetensors.torch import save_file

    state = ir18.state_dict()
    head = {"head.kernel": torch.zeros(2, 3), "head.t": torch.zeros(1)}
    files = {name: tmp_path / name for name in ("ada.ckpt", "cvl.pt", "model.safetensors")}
    torch.save({"state_dict": {f"model.{key}": value for key, value in state.items()} | head}, files["ada.ckpt"])
    torch.save({f"net.{key}": value for key, value in state.items()}, files["cvl.pt"])
    save_file({f"model.net.{key}": value for key, value in state.items()}, files["model.safetensors"])
    pictures = faces(112)
    values = torch.from_numpy(pictures[..., [2, 1, 0]].astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
    wanted = F.normalize(transcribed(state, values)).numpy()
    for file in files.values():
        embedder = make_embedder("adaface", path=file, device="cpu")
        assert np.abs(embedder(pictures) - wanted).max() < 1e-5
        assert " bgr|" in embedder.signature
    other = make_embedder("adaface", path=files["ada.ckpt"], channels="rgb", device="cpu")
    assert np.abs(other(pictures[..., ::-1]) - wanted).max() < 1e-5
    assert other.signature != embedder.signature


def test_channels_of_an_onnx_file(ir18, tmp_path):
    pytest.importorskip("onnx")
    from tests.onnx_networks import mean_colours

    path = mean_colours(tmp_path / "colours.onnx")
    pictures = faces(112)
    rgb, bgr = (make_embedder("onnx", path=path, channels=order) for order in ("rgb", "bgr"))
    assert np.array_equal(rgb(pictures), bgr(pictures[..., ::-1]))
    assert rgb.signature == make_embedder("onnx", path=path).signature == bgr.signature.replace(" bgr", "")
    assert np.array_equal(make_embedder("adaface", path=path)(pictures), bgr(pictures))
    for name in ("onnx", "adaface"):
        with pytest.raises(ConfigError, match="channels=gbr: expected rgb or bgr"):
            make_embedder(name, path=path, channels="gbr")


def test_facenet_equals_the_published_package(tmp_path):
    """The vectors were computed with InceptionResnetV1 of facenet-pytorch 2.6.0 on the same numbers."""
    network = filled(InceptionResNetV1())
    assert len(network.state_dict()) == FACENET_TENSORS
    state = network.state_dict() | {"logits.weight": torch.zeros(4, 512), "logits.bias": torch.zeros(4)}
    torch.save(state, tmp_path / "facenet.pt")
    made = make_embedder("facenet", path=tmp_path / "facenet.pt", device="cpu")
    found = made(faces(160))
    assert found[:, :4] == pytest.approx(np.array(FACENET), abs=1e-5)
    assert made.template == "arcface"
    assert made.face_size == 160


def test_wrong_files_are_refused_in_one_line(ir18, tmp_path):
    with pytest.raises(ConfigError, match=r"embedder\.path="):
        make_embedder("adaface", path=None)
    with pytest.raises(WeightsError, match="absent"):
        make_embedder("facenet", path=tmp_path / "absent.pt")
    state = {f"model.{key}": value for key, value in ir18.state_dict().items()}
    fewer = {key: value for key, value in state.items() if not key.startswith("model.body.7")}
    cases = {
        "7 blocks, expected 8 or 24 or 49": fewer,
        "no tensor 'input_layer.0.weight'": {"x": torch.zeros(1)},
        "unknown": state | {"model.body.7.more": torch.zeros(1)},
        "missing": {key: value for key, value in state.items() if key != "model.output_layer.3.bias"},
    }
    for words, tensors in cases.items():
        torch.save({"state_dict": tensors}, tmp_path / "x.ckpt")
        with pytest.raises(WeightsError, match=words) as caught:
            make_embedder("adaface", path=tmp_path / "x.ckpt", device="cpu")
        assert "\n" not in str(caught.value)
    torch.save({"x": torch.zeros(1)}, tmp_path / "x.pt")
    with pytest.raises(WeightsError, match="does not fit InceptionResNetV1"):
        make_embedder("facenet", path=tmp_path / "x.pt", device="cpu")
