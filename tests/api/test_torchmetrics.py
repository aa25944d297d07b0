"""Metrics in a training loop: the leaderboard's values and signature, one mean over processes."""

import copy
import importlib.util
import os
import pickle

import numpy as np
import pytest
import torch

import ffhqref

if importlib.util.find_spec("torchmetrics") is None:
    pytest.skip("torchmetrics is not installed", allow_module_level=True)


def batches():
    generator = torch.Generator().manual_seed(0)
    gt = torch.rand((5, 3, 64, 64), generator=generator)
    output = (gt + 0.1 * torch.randn(gt.shape, generator=generator)).clamp(0, 1)
    return [(output[:2], gt[:2]), (output[2:3], gt[2:3]), (output[3:], gt[3:])]


def mean_of(parts):
    metric = ffhqref.metric("psnr", size=None).as_torchmetric()
    for output, gt in parts:
        metric.update(output, gt=gt)
    return metric


def test_the_mean_over_cases():
    function = ffhqref.metric("psnr", size=None)
    metric = mean_of(batches())
    expected = np.concatenate([function(output, gt=gt) for output, gt in batches()])
    assert metric.compute().item() == pytest.approx(expected.mean(), rel=1e-14)
    assert metric.signature == function.signature
    assert metric.higher_is_better
    assert copy.deepcopy(metric).compute() == pickle.loads(pickle.dumps(metric)).compute() == metric.compute()
    metric.reset()
    assert torch.isnan(metric.compute())
    assert ffhqref.metric("ids").as_torchmetric().signature == ffhqref.metric("ids").signature


def test_cases_without_a_value_are_counted():
    metric = ffhqref.metric("niqe").as_torchmetric()
    grey, noise = (np.full((512, 512, 3), 128, np.uint8), np.random.default_rng(0).integers(0, 256, (512, 512, 3)))
    metric.update([grey, noise.astype(np.uint8)])
    assert metric.undefined == 1
    assert metric.compute().item() == ffhqref.metric("niqe")(noise.astype(np.uint8))


def worker(rank, folder):
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=3)
    metric = mean_of([batches()[:2], batches()[2:], []][rank])  # the third process has no case
    torch.save(metric.compute(), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_several_processes_are_one(tmp_path):
    torch.multiprocessing.start_processes(worker, (str(tmp_path),), nprocs=3, start_method="fork")
    alone = mean_of(batches()).compute()
    for rank in range(3):
        assert torch.equal(torch.load(tmp_path / f"{rank}.pt"), alone), "bit for bit"
