"""Every metric on a CUDA device, or on the second device that stands in for one: the values of the CPU.

Networks have random weights, placed where a user's would be. On the second device the bound is exact but for the order
of sums; a GPU's own bound (TF32, other orders) was never measured, and the one here finds gross faults only.
"""

import pickle

import numpy as np
import pytest
import torch

from ffhqref.core.compat import ensure_torchvision
from ffhqref.core.images import read_rgb, to_tensor
from ffhqref.faces.ages import AGE_MODELS
from ffhqref.faces.recogniser_networks import IRESNETS, InceptionResNetV1, IResNet
from ffhqref.metrics import METRICS, MetricBatch, MetricRuntime, dataset_metrics, make_metric
from ffhqref.metrics.grey_arcface import grey_resnet18
from ffhqref.metrics.jury import JUDGES


@pytest.fixture(scope="module")
def batch(sample_folder):
    """A noisy image, a constant one, an identical one; two references each."""
    pictures = to_tensor([read_rgb(file) for file in sorted(sample_folder.glob("*.jpg"))[:3]])
    noise = torch.randn(pictures.shape[1:], generator=torch.Generator().manual_seed(0))
    outputs = torch.stack([(pictures[0] + 0.1 * noise).clamp(0, 1), torch.full_like(pictures[1], 0.5), pictures[2]])
    return MetricBatch(outputs, pictures, references=[pictures[1:]] * 3)


def convolutions(widths, kernels):
    rng = torch.Generator().manual_seed(1)
    at, before, state = 0, 3, {}
    for width, kernel in zip(widths, kernels, strict=True):
        if width:
            scale = (2.0 / (before * kernel * kernel)) ** 0.5
            state[f"features.{at}.weight"] = torch.randn(width, before, kernel, kernel, generator=rng) * scale
            state[f"features.{at}.bias"] = torch.randn(width, generator=rng) * 0.1
            before = width
        at += 2 if width else 1
    return state


def vgg():
    return convolutions([64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512], [3] * 17)


def alex():
    return convolutions([64, 0, 192, 0, 384, 256, 256], [11, 0, 5, 0, 3, 3, 3])


def seeded(make):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def landmarks():
    from facexlib.alignment.awing_arch import FAN

    return {"state_dict": FAN(num_modules=4, num_landmarks=98, device="cpu").state_dict()}


def parser():
    from facexlib.parsing.parsenet import ParseNet

    return ParseNet(in_size=512, out_size=512, parsing_ch=19).state_dict()


def musiq():
    from pyiqa.archs.musiq_arch import MUSIQ

    return MUSIQ(pretrained=False).state_dict()


def dists():
    rng = torch.Generator().manual_seed(3)
    return {name: torch.rand(1, 1475, 1, 1, generator=rng) for name in ("alpha", "beta")}


def grey():
    return {f"module.{name}": value for name, value in grey_resnet18().state_dict().items()}


def inception():
    from unittest import mock

    from pyiqa.archs import inception as theirs

    with mock.patch.object(theirs, "load_pretrained_network", return_value=None):
        return theirs.fid_inception_v3().state_dict()


def embedder(path):
    """Write a network that takes the mean colours of 7x7 fields of a 112 px face."""
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [
            helper.make_node("AveragePool", ["input"], ["fields"], kernel_shape=[16, 16], strides=[16, 16]),
            helper.make_node("Flatten", ["fields"], ["output"]),
        ],
        "embedder",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["n", 147])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))


def adaface():
    return IResNet(IRESNETS[8]).state_dict()


def facenet():
    return InceptionResNetV1().state_dict()


FILES = {
    "adaface_ir18.ckpt": adaface,
    "20180402-114759-vggface2.pt": facenet,
    "vgg16-397923af.pth": vgg,
    "alexnet-owt-7be5be79.pth": alex,
    "DISTS_weights-f5e65c96.pth": dists,
    "musiq_koniq_ckpt-e95806b9.pth": musiq,
    "alignment_WFLW_4HG.pth": landmarks,
    "parsing_parsenet.pth": parser,
    "resnet18_110.pth": grey,
    "pt_inception-2015-12-05-6726825d.pth": inception,
}
NEEDED = {
    "ids_adaface": ["adaface_ir18.ckpt"],
    "ids_facenet": ["20180402-114759-vggface2.pt"],
    "lpips_vgg": ["vgg16-397923af.pth"],
    "lpips_alex": ["alexnet-owt-7be5be79.pth"],
    "dists": ["vgg16-397923af.pth", "DISTS_weights-f5e65c96.pth"],
    "musiq": ["musiq_koniq_ckpt-e95806b9.pth"],
    "lmd": ["alignment_WFLW_4HG.pth"],
    "flpips_parsenet": ["parsing_parsenet.pth", "vgg16-397923af.pth"],
    "ids_grey_r18": ["resnet18_110.pth"],
    "fid": ["pt_inception-2015-12-05-6726825d.pth"],
}
PACKAGE = {"musiq": "pyiqa", "fid": "pyiqa", "lmd": "facexlib", "flpips_parsenet": "facexlib"}
EMBEDDING = ("ids", "ids_ref", "ids_ref_best", "ids_ref_mean")
ONNX_JUDGES = ("ids_arcface_r50", "ids_arcface_r100", "ids_edgeface")
ALIGNED = ("age_error", "ids_refldm", *EMBEDDING, *JUDGES)
"""They take aligned faces of 512 px."""
SLOW = ("flpips_parsenet", "lmd", "musiq")
"""One case is enough."""


def cut(batch, height, width):
    """The same cases, their middle."""

    def part(pictures):
        return pictures[..., 170 : 170 + height, 170 : 170 + width]

    return MetricBatch(part(batch.output), part(batch.gt), [part(references) for references in batch.references])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A function that writes the files of a metric into the weights folder, each once."""
    folder = tmp_path_factory.mktemp("weights")

    def write(name):
        ensure_torchvision()
        pytest.importorskip(PACKAGE.get(name, "torch"))
        for file in NEEDED.get(name, []):
            if not (folder / file).is_file():
                torch.save(seeded(FILES[file]), folder / file)
        if name == "ids_refldm" or name in (*EMBEDDING, *ONNX_JUDGES):
            pytest.importorskip("onnx")
            embedder(folder / "insightface_webface_r50.onnx")
        return folder

    return write


class RedAge:
    """The mean of the red channel as an age."""

    signature = "red"

    def __call__(self, images):
        return images[..., 0].mean(axis=(1, 2)).astype(np.float32)


def on(batch, device):
    there = [references.to(device) for references in batch.references]
    return MetricBatch(batch.output.to(device), batch.gt.to(device), there)


@pytest.mark.parametrize("name", METRICS.names())
def test_a_cuda_device_gives_the_values_of_the_cpu(batch, weights, cuda, request, monkeypatch, name):
    folder = weights(name)
    options = {"embedder": "onnx", "path": folder / "insightface_webface_r50.onnx"} if name in EMBEDDING else {}
    if name in ONNX_JUDGES:
        options = {"path": folder / "insightface_webface_r50.onnx"}
    if name == "ids_adaface":
        options = {"path": folder / "adaface_ir18.ckpt"}
    if name == "age_error":
        monkeypatch.setitem(AGE_MODELS._builtin, "red", "")
        monkeypatch.setattr(AGE_MODELS, "get", lambda _: RedAge)
        options = {"model": "red"}
    if name == "flpips_parsenet":  # its network halves five times
        batch = cut(batch, 96, 64)
    elif name not in ALIGNED:
        batch = cut(batch, *((97, 83) if name in NEEDED else (197, 173)))
    if name in SLOW:
        batch = MetricBatch(batch.output[:1], batch.gt[:1], batch.references[:1])

    def metric(device):
        return make_metric(name, runtime=MetricRuntime(device, folder), **options)

    expected, there = metric("cpu")(batch), metric(cuda)
    second = "second_device" in request.fixturenames
    bound = {"rtol": 1e-5, "atol": 1e-6} if second else {"rtol": 0.02, "atol": 1e-3}
    if name not in SLOW:
        np.testing.assert_allclose(there(batch), expected, **bound)
    np.testing.assert_allclose(pickle.loads(pickle.dumps(there))(on(batch, cuda)), expected, **bound)
    if second and name in NEEDED:
        device = request.getfixturevalue("second_device")
        assert device.operations > 10, "it worked somewhere else"
        assert there.device == cuda
    assert np.isfinite(expected[0])


def test_set_metrics_on_a_cuda_device_have_the_features_of_the_cpu(weights, cuda, request, sample_folder):
    folder = weights("fid")
    pictures = [read_rgb(file) for file in sorted(sample_folder.glob("*.jpg"))[:2]] + [
        np.full((64, 51, 3), 9, np.uint8)
    ]
    here, there = (
        dataset_metrics.InceptionFeatures(runtime=MetricRuntime(device, folder))(pictures) for device in ("cpu", cuda)
    )
    second = "second_device" in request.fixturenames
    np.testing.assert_allclose(there, here, rtol=1e-5 if second else 0.02, atol=1e-5 if second else 0.02)
    if second:
        assert request.getfixturevalue("second_device").operations > 100
