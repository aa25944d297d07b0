"""PGDiff against the published code. Everything that varies is read from the golden folder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ffhqref.core.errors import WeightsError
from ffhqref.core.images import to_tensor, to_uint8
from ffhqref.restorers import RestorationBatch, make_restorer
from ffhqref.zoo.pgdiff.arcface import ArcFace, shrunk
from ffhqref.zoo.pgdiff.config import PGDiffConfig
from ffhqref.zoo.pgdiff.network import SmoothSemantics
from ffhqref.zoo.shared.guided_diffusion.draws import StoredDraws
from ffhqref.zoo.shared.guided_diffusion.unet import GuidedUNet

from .golden_diffusion import file_with, recorded_chain
from .golden_tools import TOLERANCE, folder_of, layout, read_json, relative

pytestmark = pytest.mark.golden
FIRST_TOLERANCE = 2e-3
"""For x̂0 and gradient of a first step at t near 1000, where rounding is divided by sqrt(ᾱ) ≈ 1/100."""

SETTINGS = (
    "task",
    "guidance_scale",
    "respacing",
    "seed",
    "N",
    "s_start",
    "s_end",
    "ref_weight",
    "ss_weight",
)


@pytest.fixture(scope="module")
def folder(golden):
    return folder_of(golden, "pgdiff")


def files(folder):
    return {
        "path": file_with(folder, "input_blocks.0.0.weight")[0],
        "restorer_path": file_with(folder, "generator.conv_first.weight")[0],
        "arcface_path": file_with(folder, "features.running_var")[0],
    }


@pytest.fixture(scope="module")
def cases(folder):
    """Each case, its tensors, its batch, the restorer under its settings, and what that makes of the stored draws."""
    made, shared = [], {}
    for case in read_json(folder / "cases.json"):
        options = {name: case[name] for name in SETTINGS if name in case}
        restorer = make_restorer(
            "pgdiff", device="cpu", config=folder / "config.json", noise="shared", **files(folder), **options
        )
        restorer.__dict__.update(shared)
        shared |= {"unet": restorer.unet, "smooth_semantics": restorer.smooth_semantics}
        stored = load_file(folder / case["file"])
        reference = to_tensor([stored["ref_u8"].numpy()]) if "ref_u8" in stored else torch.zeros(0, 3, 8, 8)
        batch = RestorationBatch(to_tensor([stored["lq_u8"].numpy()]), [reference], [0])
        made.append((case, stored, batch, restorer, recorded_chain(restorer, batch, StoredDraws(stored["draws"]))))
    return made


def test_restorer_gives_the_published_picture(cases):
    for case, stored, batch, restorer, (made, picture, _) in cases:
        levels = to_uint8(made, restorer.quantization)[0].astype(int) - stored["image_u8"].numpy()
        assert np.abs(levels).max() <= 1, case
        assert picture.shape == batch.lq.shape
        if picture.shape == made.shape:
            assert torch.equal(picture, made)


def test_shared_noise_is_the_published_scripts(cases):
    for case, stored, batch, restorer, _ in cases:
        draws = restorer.draws(batch)
        assert all(torch.equal(draws(), theirs) for theirs in stored["draws"]), case


def test_states_and_gradients(cases):
    for case, stored, _, _, (_, _, steps) in cases:
        assert [step.time for step in steps] == stored["timesteps"].tolist(), case
        assert len(stored["draws"]) == len(steps) + 1
        assert relative(steps[-1].gradient, stored["gradient_last"]) < TOLERANCE, case
        assert relative(steps[-1].state, stored["state_last"]) < TOLERANCE, case
        if "gradient_first" in stored:
            assert relative(steps[0].gradient, stored["gradient_first"]) < FIRST_TOLERANCE, case


def test_first_step(cases):
    checked = 0
    for case, stored, batch, restorer, (_, _, steps) in cases:
        if "unet_first_out" not in stored:
            continue
        checked += 1
        with torch.no_grad():
            y = restorer.prepared(batch.lq)
            guess = restorer.smooth_semantics(stored["draws"][0], y, int(stored["restorer_timesteps"][0]))
        mean, log_variance = restorer.diffusion.posterior(
            stored["draws"][0], stored["pred_xstart_first"], steps[0].index, stored["unet_first_out"]
        )
        assert relative(y, stored["y"]) == 0
        assert steps[0].time == int(stored["unet_first_t"][0])
        assert relative(steps[0].output, stored["unet_first_out"]) < TOLERANCE
        assert relative(guess, stored["restorer_first"]) < TOLERANCE
        assert relative(mean, stored["mean_first"]) < TOLERANCE
        assert relative(log_variance.exp(), stored["variance_first"]) < TOLERANCE
        assert relative(steps[0].x0, stored["pred_xstart_first"]) < FIRST_TOLERANCE
        assert relative(steps[0].state, stored["state_first"]) < TOLERANCE
        assert relative(steps[-1].x0, stored["pred_xstart_last"]) < TOLERANCE
        assert len({step.index for step in steps}) == len(stored["restorer_timesteps"]), case
    assert checked


def test_identity_network(cases):
    checked = 0
    for _, stored, batch, restorer, (_, _, steps) in cases:
        if "emb_ref" not in stored:
            continue
        checked += 1
        with torch.no_grad():
            reference = restorer.prepared(batch.references[0])
            assert relative(restorer.arcface(shrunk(reference)), stored["emb_ref"]) < TOLERANCE
            assert relative(shrunk(steps[0].x0), stored["emb_in_first"]) < TOLERANCE
            assert relative(restorer.arcface(stored["emb_in_first"]), stored["emb_x0_first"]) < TOLERANCE
    assert checked


def test_full_size_layout(folder):
    official = read_json(folder / "config.json")["official_defaults"]
    full = PGDiffConfig.load({name: official[name] for name in ("model_and_diffusion", "restorer", "arcface")})
    assert full == PGDiffConfig()
    for build, tensor in (
        (lambda: GuidedUNet(full.unet), "input_blocks.0.0.weight"),
        (lambda: SmoothSemantics(full.rrdb), "generator.conv_first.weight"),
        (lambda: ArcFace(full.arcface), "features.running_var"),
    ):
        with torch.device("meta"):
            network = build()
        assert layout(network) == file_with(folder, tensor)[1]


@pytest.mark.parametrize(
    ("which", "network"), [("path", "unet"), ("restorer_path", "smooth_semantics"), ("arcface_path", "arcface")]
)
def test_wrong_files_are_refused(folder, which, network, tmp_path):
    given = files(folder)
    whole = given[which].read_bytes()
    (tmp_path / "short.pth").write_bytes(whole[: len(whole) // 2])
    other = given["path" if which != "path" else "arcface_path"]
    for path in (tmp_path / "short.pth", other):
        options = {**given, which: path, "config": folder / "config.json", "task": "ref_restoration"}
        with pytest.raises(WeightsError) as told:
            getattr(make_restorer("pgdiff", device="cpu", **options), network)
        assert str(path) in str(told.value)
        assert "\n" not in str(told.value)
