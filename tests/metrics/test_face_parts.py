"""Landmark distance and face-region LPIPS on random weights placed where a user would put real ones."""

import cv2
import numpy as np
import pytest
import torch

from ffhqref.core.compat import ensure_torchvision
from ffhqref.core.errors import WeightsError
from ffhqref.core.images import read_rgb, to_tensor
from ffhqref.metrics import MetricBatch, make_metric
from ffhqref.metrics.faceparts import FACE_CLASSES, peaks


@pytest.fixture(scope="module")
def pairs(sample_folder):
    files = sorted(sample_folder.rglob("*.jpg"))[:3]
    pictures = to_tensor([read_rgb(file) for file in files])
    return MetricBatch(pictures[:2], pictures[1:3])


@pytest.fixture
def caches(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("FFHQREF_WEIGHTS", str(tmp_path / "empty"))
    ensure_torchvision()
    pytest.importorskip("facexlib")
    for name in ("facexlib", "checkpoints"):
        (tmp_path / "hub" / name).mkdir(parents=True)
    return tmp_path / "hub"


def test_peaks_are_those_of_the_published_decoding_away_from_the_border():
    """The published steps for one map: largest pixel, a quarter towards the larger neighbour, half a pixel."""
    heatmaps = np.random.default_rng(0).random((40, 64, 64)).astype(np.float32)
    heatmaps[:, [0, -1]] = heatmaps[:, :, [0, -1]] = 0
    for heatmap, (x, y) in zip(heatmaps, peaks(heatmaps), strict=True):
        at = heatmap.argmax()
        flat = heatmap.ravel()
        assert x == at % 64 + 0.25 * np.sign(flat[at + 1] - flat[at - 1]) + 0.5
        assert y == at // 64 + 0.25 * np.sign(flat[at + 64] - flat[at - 64]) + 0.5


def test_a_peak_in_a_corner_is_decoded():
    heatmaps = np.zeros((2, 64, 64), np.float32)
    heatmaps[0, 0, 0] = heatmaps[1, 63, 63] = 1
    np.testing.assert_array_equal(peaks(heatmaps), [[0.75 - 0.5, 0.25], [63.75, 63.75]])


def test_landmark_distance(pairs, caches):
    with pytest.raises(WeightsError, match=r"alignment_WFLW_4HG\.pth"):
        make_metric("lmd")
    from facexlib.alignment.awing_arch import FAN

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = FAN(num_modules=4, num_landmarks=98, device="cpu").eval()
    torch.save({"state_dict": network.state_dict(), "epoch": 3}, caches / "facexlib" / "alignment_WFLW_4HG.pth")
    metric = make_metric("lmd")
    assert not metric.higher_is_better
    points = []
    for picture in (pairs.output[0], pairs.gt[0]):
        bgr = (picture.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)[..., ::-1]
        small = cv2.resize(bgr, (256, 256))[..., ::-1] / np.float32(255.0)
        with torch.no_grad():
            maps = network(torch.from_numpy(np.ascontiguousarray(small.transpose(2, 0, 1)))[None])[0][-1]
        points.append(peaks(maps[0, :-1].numpy()) * (512 / 64))
    expected = np.sqrt(((points[0] - points[1]) ** 2).sum(axis=1)).mean()
    assert expected > 1
    one = MetricBatch(pairs.output[:1], pairs.gt[:1], gt_ids=["a"])
    assert metric(one)[0] == pytest.approx(expected, rel=1e-6)
    assert metric(MetricBatch(pairs.gt[:1], pairs.gt[:1], gt_ids=["a"]))[0] == 0  # the kept points are the right ones


@pytest.mark.slow
def test_face_lpips_looks_at_the_face_of_the_ground_truth_only(pairs, caches):
    with pytest.raises(WeightsError, match=r"parsing_parsenet\.pth"):
        make_metric("flpips_parsenet")
    from facexlib.parsing.parsenet import ParseNet

    with torch.random.fork_rng():
        torch.manual_seed(1)
        parser = ParseNet(in_size=512, out_size=512, parsing_ch=19).eval()
        widths = [64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512]
        state, at, before = {}, 0, 3
        for width in widths:
            if width:
                state[f"features.{at}.weight"] = torch.randn(width, before, 3, 3) * (2 / (9 * before)) ** 0.5
                state[f"features.{at}.bias"] = torch.zeros(width)
                before = width
            at += 2 if width else 1
        with torch.no_grad():  # let the classes compete, or one of them takes the whole image
            last = parser.out_mask_conv.conv2d
            last.bias -= parser(pairs.gt[:1] * 2 - 1)[0].mean(dim=(0, 2, 3))
    torch.save(parser.state_dict(), caches / "facexlib" / "parsing_parsenet.pth")
    torch.save(state, caches / "checkpoints" / "vgg16-397923af.pth")
    one = MetricBatch(pairs.output[:1], pairs.gt[:1])
    with torch.no_grad():
        classes = parser(one.gt * 2 - 1)[0].argmax(dim=1, keepdim=True).numpy()
    face = torch.from_numpy(np.isin(classes, FACE_CLASSES))
    assert 0 < face.float().mean() < 1
    metric = make_metric("flpips_parsenet")
    value = metric(one)[0]
    by_hand = make_metric("lpips_vgg")(MetricBatch(one.output * face, one.gt * face))[0]
    assert value == pytest.approx(by_hand, rel=1e-5)
    elsewhere = torch.where(face, one.output, torch.rand(one.output.shape))
    assert metric(MetricBatch(elsewhere, one.gt))[0] == value
