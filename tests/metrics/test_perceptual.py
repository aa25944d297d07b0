"""LPIPS, DISTS, MUSIQ and the pyiqa adapter with random weights placed where a user would put real ones."""

import os
import pickle
import socket

import numpy as np
import pytest
import torch

from ffhqref.core.compat import ensure_torchvision
from ffhqref.core.errors import ConfigError, ImageError, WeightsError
from ffhqref.core.images import read_rgb, to_tensor
from ffhqref.metrics import MetricBatch, MetricRuntime, make_metric
from ffhqref.metrics.perceptual import lpips_heads, perceptual_loss

FILES = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth"}


@pytest.fixture(scope="module")
def pairs(sample_folder):
    files = sorted(sample_folder.rglob("*.jpg"))[:3]
    pictures = to_tensor([read_rgb(file) for file in files])[:, :, 150:287, 100:275]  # odd sides
    generator = torch.Generator().manual_seed(0)
    outputs = (pictures + 0.1 * torch.randn(pictures.shape, generator=generator)).clamp(0, 1)
    return MetricBatch(outputs, pictures)


@pytest.fixture(autouse=True)
def working_torchvision():
    ensure_torchvision()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("FFHQREF_WEIGHTS", str(tmp_path / "empty"))
    for name in ("checkpoints", "pyiqa"):
        (tmp_path / "hub" / name).mkdir(parents=True)
    return tmp_path / "hub"


def random_backbone(net):
    """Convolutions of torchvision's layout with random values; the classifier is not needed."""
    generator = torch.Generator().manual_seed(1)
    widths = {
        "vgg": [64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512],
        "alex": [64, 0, 192, 0, 384, 256, 256],
    }[net]
    kernels = {"vgg": [3] * 17, "alex": [11, 0, 5, 0, 3, 3, 3]}[net]
    at, before, state = 0, 3, {}
    for width, kernel in zip(widths, kernels, strict=True):
        if not width:
            at += 1
            continue
        scale = (2.0 / (before * kernel * kernel)) ** 0.5
        state[f"features.{at}.weight"] = torch.randn(width, before, kernel, kernel, generator=generator) * scale
        state[f"features.{at}.bias"] = torch.randn(width, generator=generator) * 0.1
        at, before = at + 2, width
    return state


def bare_vgg(**_):
    """torchvision's VGG-16 without its classifier's 120 million numbers, on the random convolutions."""
    from torchvision.models import VGG
    from torchvision.models.vgg import cfgs, make_layers

    network = VGG(make_layers(cfgs["D"]), num_classes=1, init_weights=False)
    network.classifier = torch.nn.Identity()
    state = random_backbone("vgg")
    network.features.load_state_dict({name.removeprefix("features."): value for name, value in state.items()})
    return network


@pytest.mark.parametrize("net", ["vgg", "alex"])
def test_lpips_equals_the_lpips_package(pairs, hub, net, monkeypatch):
    lpips = pytest.importorskip("lpips")
    monkeypatch.setattr(lpips.pretrained_networks.tv, "vgg16", bare_vgg)
    state = random_backbone(net)
    torch.save(state, hub / "checkpoints" / FILES[net])
    metric = make_metric(f"lpips_{net}")
    theirs = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)  # its heads are the real ones
    own = {}
    for name, value in theirs.net.state_dict().items():  # sliceN.INDEX.weight
        own[name] = state[f"features.{name.split('.', 1)[1]}"]
        assert own[name].shape == value.shape
    theirs.net.load_state_dict(own)
    with torch.no_grad():
        expected = theirs(pairs.output, pairs.gt, normalize=True).reshape(-1).numpy()
    assert (expected > 0.01).all()
    np.testing.assert_allclose(metric(pairs), expected, rtol=1e-5)
    assert not metric.higher_is_better
    np.testing.assert_allclose(metric(MetricBatch(pairs.gt, pairs.gt)), 0.0, atol=1e-9)


@pytest.mark.parametrize("net", ["vgg", "alex"])
def test_the_perceptual_loss_has_value_and_gradient_of_the_lpips_package(pairs, hub, net, monkeypatch):
    lpips = pytest.importorskip("lpips")
    monkeypatch.setattr(lpips.pretrained_networks.tv, "vgg16", bare_vgg)
    state = random_backbone(net)
    torch.save(state, hub / "checkpoints" / FILES[net])
    theirs = lpips.LPIPS(net=net, pnet_rand=True, verbose=False).requires_grad_(False)
    theirs.net.load_state_dict({name: state[f"features.{name.split('.', 1)[1]}"] for name in theirs.net.state_dict()})
    truth, output = 2.0 * pairs.gt - 1.0, 2.0 * pairs.output - 1.0

    def value_and_gradients(distance):
        first, second = truth.clone().requires_grad_(), output.clone().requires_grad_()
        values = distance(first, second).reshape(-1)
        return values.detach(), *torch.autograd.grad(values.sum(), (first, second))

    for found, expected in zip(value_and_gradients(perceptual_loss(net)), value_and_gradients(theirs), strict=True):
        assert expected.abs().max() > 0
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


def test_the_gradient_is_finite_where_features_are_all_zero(pairs, hub):
    state = {name: -value.abs() for name, value in random_backbone("alex").items()}  # every activation is 0
    torch.save(state, hub / "checkpoints" / FILES["alex"])
    output = (2.0 * pairs.output - 1.0).abs().requires_grad_()
    (gradient,) = torch.autograd.grad(perceptual_loss("alex")(output.detach() * 0.5, output).sum(), output)
    assert torch.isfinite(gradient).all()


def test_the_packaged_heads_are_those_of_the_lpips_package(monkeypatch):
    lpips = pytest.importorskip("lpips")
    monkeypatch.setattr(lpips.pretrained_networks.tv, "vgg16", bare_vgg)
    for net in ("vgg", "alex"):
        theirs = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
        for layer, values in enumerate(lpips_heads(net)):
            head = getattr(theirs, f"lin{layer}").model[1].weight.detach().numpy().reshape(-1)
            np.testing.assert_array_equal(values, head)


def test_a_file_that_is_not_the_published_one_shows_in_the_signature(pairs, hub):
    torch.save(random_backbone("alex"), hub / "checkpoints" / FILES["alex"])
    assert "not the published file" in make_metric("lpips_alex").signature


def test_lpips_kept_features_do_not_change_a_value(pairs, hub):
    torch.save(random_backbone("alex"), hub / "checkpoints" / FILES["alex"])
    metric = make_metric("lpips_alex")
    plain = metric(pairs)
    hashed = MetricBatch(pairs.output, pairs.gt, gt_ids=["a", "b", "c"])
    np.testing.assert_array_equal(metric(hashed), plain)
    again = MetricBatch(pairs.output[[2]], pairs.gt[[2]], gt_ids=["c"])
    assert metric(again)[0] == plain[2]
    restored = pickle.loads(pickle.dumps(metric))
    np.testing.assert_array_equal(restored(hashed), plain)


@pytest.mark.parametrize(("net", "least"), [("vgg", 16), ("alex", 31)])
def test_the_smallest_picture_has_a_value(pairs, hub, net, least):
    torch.save(random_backbone(net), hub / "checkpoints" / FILES[net])
    metric = make_metric(f"lpips_{net}")
    corner = MetricBatch(pairs.output[:1, :, :least, :least], pairs.gt[:1, :, :least, :least])
    assert metric(corner)[0] > 0
    with pytest.raises(RuntimeError):
        metric(MetricBatch(corner.output[..., 1:], corner.gt[..., 1:]))


def test_a_file_of_another_network_is_refused(pairs, hub):
    torch.save(random_backbone("alex"), hub / "checkpoints" / FILES["vgg"])
    with pytest.raises(WeightsError, match="no ImageNet state dict of torchvision's vgg"):
        make_metric("lpips_vgg")(pairs)


def test_the_wrong_size_is_one_line(pairs, hub):
    torch.save(random_backbone("alex"), hub / "checkpoints" / FILES["alex"])
    with pytest.raises(ImageError, match="one size is needed"):
        make_metric("lpips_alex")(MetricBatch(pairs.output[..., :64], pairs.gt))


def test_dists_equals_that_of_pyiqa(pairs, hub, monkeypatch):
    pytest.importorskip("pyiqa")
    from pyiqa.archs import dists_arch

    state = random_backbone("vgg")
    generator = torch.Generator().manual_seed(2)
    head = {name: torch.rand(1, 1475, 1, 1, generator=generator) for name in ("alpha", "beta")}
    torch.save(state, hub / "checkpoints" / FILES["vgg"])
    torch.save(head, hub / "pyiqa" / "DISTS_weights-f5e65c96.pth")

    monkeypatch.setattr(dists_arch.models, "vgg16", bare_vgg)
    theirs = dists_arch.DISTS(pretrained=False).eval()
    theirs.alpha.data, theirs.beta.data = head["alpha"], head["beta"]
    with torch.no_grad():
        expected = theirs(pairs.output, pairs.gt).reshape(-1).numpy()
    assert (expected > 1e-3).all()
    np.testing.assert_allclose(make_metric("dists")(pairs), expected, rtol=1e-4, atol=1e-6)


def random_musiq():
    pytest.importorskip("pyiqa")
    from pyiqa.archs.musiq_arch import MUSIQ

    with torch.random.fork_rng():
        torch.manual_seed(3)
        return MUSIQ(pretrained=False).eval()


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("something asked for the network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("name", ["musiq", "pyiqa:musiq"])
def test_musiq_runs_through_pyiqa_on_the_file_found(pairs, hub, no_network, name, capsys):
    network = random_musiq()
    torch.save(network.state_dict(), hub / "pyiqa" / "musiq_koniq_ckpt-e95806b9.pth")
    metric = make_metric(name)
    assert metric.higher_is_better
    assert metric.needs == frozenset()
    assert "musiq_koniq_ckpt-e95806b9.pth@" in metric.signature
    with torch.no_grad():
        expected = [float(network(picture[None])) for picture in pairs.output[:1]]
    batch = MetricBatch(pairs.output[:1])
    np.testing.assert_allclose(metric(batch), expected, rtol=1e-5)
    assert capsys.readouterr().out == ""
    np.testing.assert_allclose(pickle.loads(pickle.dumps(metric))(batch), expected, rtol=1e-5)


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("evil-ran",))


def test_a_hostile_file_is_refused_before_pyiqa_unpickles_it(pairs, hub, tmp_path, monkeypatch):
    pytest.importorskip("pyiqa")
    monkeypatch.chdir(tmp_path)
    torch.save({"params": Evil()}, hub / "pyiqa" / "musiq_koniq_ckpt-e95806b9.pth")
    with pytest.raises(WeightsError, match="holds more than tensors"):
        make_metric("musiq")(MetricBatch(pairs.output[:1]))
    assert not (tmp_path / "evil-ran").exists()


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("lpips_vgg", "vgg16-397923af.pth"),
        ("lpips_alex", "alexnet-owt-7be5be79.pth"),
        ("dists", "vgg16-397923af.pth"),
        ("musiq", "musiq_koniq_ckpt-e95806b9.pth"),
        ("ids_refldm", "insightface_webface_r50.onnx"),
        ("ids_grey_r18", "resnet18_110.pth"),
        ("pyiqa:brisque", "brisque_svm_weights.pth"),
        ("pyiqa:cnniqa", "CNNIQA_koniq10k-e6f14c91.pth"),
    ],
)
def test_absent_weights_are_one_line_with_the_file_and_no_network(hub, no_network, monkeypatch, name, file):
    monkeypatch.setenv("INSIGHTFACE_HOME", str(hub))
    if name.startswith("pyiqa:"):
        pytest.importorskip("pyiqa")
    with pytest.raises(WeightsError) as caught:
        make_metric(name)
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "not on this machine" in str(caught.value)


def test_a_weights_folder_of_the_run_is_looked_into(hub, tmp_path):
    folder = tmp_path / "run-weights"
    folder.mkdir()
    torch.save(random_backbone("alex"), folder / FILES["alex"])
    assert make_metric("lpips_alex", runtime=MetricRuntime(weights_dir=folder)).signature
    with pytest.raises(WeightsError):
        make_metric("lpips_alex")


def test_pyiqa_metrics_by_name(pairs, no_network):
    pyiqa = pytest.importorskip("pyiqa")
    gmsd = make_metric("pyiqa:gmsd")
    assert gmsd.needs == frozenset({"gt"})
    assert not gmsd.higher_is_better
    expected = pyiqa.create_metric("gmsd", device="cpu")(pairs.output, pairs.gt).reshape(-1).double().numpy()
    np.testing.assert_allclose(gmsd(pairs), expected, rtol=1e-6)
    with pytest.raises(ConfigError, match="Did you mean 'topiq_nr"):
        make_metric("pyiqa:topiq_nrr")
    with pytest.raises(ConfigError, match="dataset-level metric: use set_metric"):
        make_metric("pyiqa:fid")
    with pytest.raises(ConfigError, match="has no option 'net'; its options: allow_remote_code"):
        make_metric("pyiqa:gmsd", net="vgg")
    with pytest.raises(WeightsError, match="HF_HOME"):
        make_metric("pyiqa:topiq_nr-face", allow_remote_code=True)


def test_lpips_on_a_gpu(pairs, hub, cuda):
    torch.save(random_backbone("alex"), hub / "checkpoints" / FILES["alex"])
    there = make_metric("lpips_alex", runtime=MetricRuntime(device=cuda))(pairs)
    np.testing.assert_allclose(there, make_metric("lpips_alex")(pairs), rtol=2e-3)
