"""PMRF against the published code. Everything that varies is read from the golden folder."""

from __future__ import annotations

import re
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file

from ffhqref.core.errors import WeightsError
from ffhqref.core.images import to_tensor, to_uint8
from ffhqref.restorers import RestorationBatch, make_restorer
from ffhqref.zoo.pmrf.config import PMRFConfig
from ffhqref.zoo.pmrf.network import HDiT
from ffhqref.zoo.shared.swinir import build_swinir

from .golden_tools import (
    case_id,
    cases_of,
    check_levels,
    close,
    every,
    folder_of,
    layout,
    read_json,
    recorded,
    relative,
    stored_as,
)

pytestmark = [
    pytest.mark.golden,
    pytest.mark.skipif(not find_spec("spandrel"), reason="no spandrel here"),
]

TOLERANCE, SHARE = 2e-5, 3e-4
"""The set's README: relative difference, and share of 8-bit values that may be off by one level."""


@pytest.fixture(scope="module")
def folder(golden):
    return folder_of(golden, "pmrf")


@pytest.fixture(scope="module")
def config(folder):
    return read_json(folder / "config.json")


@pytest.fixture(scope="module")
def settings(config):
    """The architectures of the set."""
    return {
        "hdit": {**config["hdit"], "ff_ratio": config["ff_ratio"]},
        "swinir": {**config["swinir"], **config["swinir_fixed"]},
    }


def stem(key):
    """Return a tensor's name without what says that it is strided."""
    return re.sub(r"_s\d+$", "", key)


def strided(ours, stored, *, channels_last):
    """Return a layer's output, every N-th row and column where so many were stored."""
    if ours.dim() == 4 and ours.shape != stored.shape:
        for axis in (1, 2) if channels_last else (2, 3):
            ours = every(ours, stored, axis)
    return ours


@pytest.fixture(scope="module")
def made(folder, settings):
    """Restorers by file and steps; the networks of a file are loaded once."""
    networks = {}

    def make(case, **options):
        path = next(folder.glob("*/model.safetensors" if case.get("huggingface") else "*.ckpt"))
        restorer = make_restorer(
            "pmrf",
            device="cpu",
            path=path,
            steps=case["steps"],
            config=settings,
            **options,
        )
        if path in networks:
            restorer.networks = networks[path]
        networks[path] = restorer.networks
        return restorer

    return make


@pytest.mark.parametrize("case", cases_of("pmrf"), ids=case_id)
def test_every_stage(folder, config, made, case):
    restorer, stored = made(case), load_file(folder / case["file"])
    lq = to_tensor(list(stored["lq_u8"].numpy()))
    assert (len(lq), list(lq.shape[2:])) == (case["batch"], case["size"])
    assert (restorer.noise_std, restorer.eps) == (config["hyper"]["mmse_noise_std"], config["hyper"]["eps"])
    taps = {"mmse": restorer.networks.mean, "flow_first": restorer.networks.flow}
    with torch.no_grad():
        for prefix, network in taps.items():
            kept = {key: stem(key).removeprefix(f"{prefix}.") for key in stored if key.startswith(f"{prefix}.")}
            with recorded(network, kept.values()) as seen:
                if prefix == "mmse":
                    mean = restorer.posterior_mean(lq)
                    source = restorer.source(mean, stored["draw"])
                else:
                    steps = list(restorer.flow(source))
            for key, name in kept.items():
                ours = strided(seen[name][0], stored[key], channels_last=prefix != "mmse")
                assert relative(ours, stored[key]) < TOLERANCE, key
    assert len(steps) == case["steps"]
    assert [step.time for step in steps] == pytest.approx(stored["times"].tolist(), abs=1e-6)  # stored in float32
    stages = {
        "mmse_raw": mean, "source": source, "v_first": steps[0].velocity, "x_first": steps[0].state,
        "v_last": steps[-1].velocity, "x_last": steps[-1].state,
    }  # fmt: skip
    for name in {"x_last"} | stages.keys() & {stem(key) for key in stored}:  # larger cases keep fewer
        close(stored, name, stages[name], TOLERANCE)
    images = (steps[-1].state.clamp(0, 1), "image_u8"), (mean.clamp(0, 1), "mmse_u8")
    for image, name in images:
        for ours, theirs in zip(to_uint8(image, restorer.quantization), stored_as(stored, name), strict=True):
            check_levels(ours, theirs, SHARE)


def test_the_restorer_writes_what_the_script_writes(folder, made):
    cases = read_json(folder / "cases.json")
    case = min(cases, key=lambda case: case["steps"])
    stored = load_file(folder / case["file"])
    lq = to_tensor(list(stored["lq_u8"].numpy()))
    batch = RestorationBatch(lq, [torch.zeros(0, 3, 8, 8)] * len(lq), [case["seed"]] * len(lq))
    for output, name in (("restored", "image_u8"), ("posterior_mean", "mmse_u8")):
        images = to_uint8(made(case, output=output).restore(batch, stored["draw"]))
        for ours, theirs in zip(images, stored_as(stored, name), strict=True):
            check_levels(ours, theirs, SHARE)


def test_full_size_layout(folder):
    keys, full = read_json(folder / "keys_full.json"), PMRFConfig()
    with torch.device("meta"):
        flow = HDiT(full.hdit)
    names = {f"model.{name}": shape for name, shape in layout(flow).items()}
    for name, shape in layout(build_swinir(full.swinir)).items():
        names[f"mmse_model.{name.replace('conv_first.', 'conv_first.1.')}"] = shape
    wanted = {file: found for file, found in keys.items() if isinstance(found, dict)}
    assert wanted
    for file, found in wanted.items():
        assert names == found, file
    (order,) = (found for found in keys.values() if isinstance(found, list))
    assert [[name, list(value.shape)] for name, value in flow.named_parameters()] == order


def test_foreign_files_are_refused(settings, made, tmp_path):
    case = {"steps": 1}
    path = made(case).files["pmrf"].path
    content = torch.load(path, map_location="cpu", weights_only=True)
    shorter = {**content, "ema": {**content["ema"], "shadow_params": content["ema"]["shadow_params"][:-1]}}
    swapped = {**content, "ema": {**content["ema"], "shadow_params": content["ema"]["shadow_params"][::-1]}}
    conditional = {**content, "hyper_parameters": {**content["hyper_parameters"], "conditional": True}}
    without = {**content, "state_dict": {"model.out_norm.scale": torch.zeros(2)}}
    for number, broken in enumerate((shorter, swapped, conditional, without, {**content, "ema": None})):
        file = tmp_path / f"{number}.ckpt"
        torch.save(broken, file)
        with pytest.raises(WeightsError) as told:
            _ = make_restorer("pmrf", device="cpu", path=file, config=settings).networks
        assert str(file) in str(told.value)
        assert "\n" not in str(told.value)
