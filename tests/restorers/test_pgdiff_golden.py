"""PGDiff against the published code. Everything that varies is read from the golden folder."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from ffhqref.errors import WeightsError
from ffhqref.images import to_tensor, to_uint8
from ffhqref.restorers import RestorationBatch, make_restorer
from ffhqref.restorers.guided_diffusion.draws import StoredDraws
from ffhqref.restorers.guided_diffusion.unet import UNet
from ffhqref.restorers.pgdiff.arcface import ArcFace, shrunk
from ffhqref.restorers.pgdiff.config import PGDiffConfig
from ffhqref.restorers.pgdiff.rrdb import SmoothSemantics

pytestmark = pytest.mark.golden
TOLERANCE = 1e-4
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
    if not (golden / "pgdiff" / "cases.json").is_file():
        pytest.skip(f"no PGDiff outputs in {golden}")
    return golden / "pgdiff"


def file_with(folder, tensor):
    """The file whose full-size layout has that tensor, and the layout."""
    for name, layout in json.loads((folder / "keys_full.json").read_text()).items():
        if tensor in layout:
            return folder / name.partition(":")[0], layout
    raise AssertionError(tensor)


def files(folder):
    return {
        "path": file_with(folder, "input_blocks.0.0.weight")[0],
        "restorer_path": file_with(folder, "generator.conv_first.weight")[0],
        "arcface_path": file_with(folder, "features.running_var")[0],
    }


def recorded(restorer, batch, draws):
    """Run the restorer; return the picture at its own side, the one at the input's, and the steps in between."""
    steps, made = [], []
    sample, restored = restorer.sample, restorer.restored

    def keep_steps(*given):
        for step in sample(*given):
            steps.append(step)
            yield step

    def keep_picture(*given):
        made.append(restored(*given))
        return made[0]

    restorer.sample, restorer.restored = keep_steps, keep_picture
    picture = restorer.restore(batch, draws)
    return made[0], picture, steps


@pytest.fixture(scope="module")
def cases(folder):
    """Each case, its tensors, its batch, the restorer under its settings, and what that makes of the stored draws."""
    made, shared = [], {}
    for case in json.loads((folder / "cases.json").read_text()):
        options = {name: case[name] for name in SETTINGS if name in case}
        restorer = make_restorer(
            "pgdiff", device="cpu", config=folder / "config.json", noise="shared", **files(folder), **options
        )
        restorer.__dict__.update(shared)
        shared |= {"unet": restorer.unet, "smooth_semantics": restorer.smooth_semantics}
        stored = load_file(folder / case["file"])
        reference = to_tensor([stored["ref_u8"].numpy()]) if "ref_u8" in stored else torch.zeros(0, 3, 8, 8)
        batch = RestorationBatch(to_tensor([stored["lq_u8"].numpy()]), [reference], [0])
        made.append((case, stored, batch, restorer, recorded(restorer, batch, StoredDraws(stored["draws"]))))
    return made


def off(ours, theirs):
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())


def test_restorer_gives_the_published_picture(cases):
    for case, stored, batch, restorer, (made, picture, _) in cases:
        levels = to_uint8(made, restorer.eight_bit_rule)[0].astype(int) - stored["image_u8"].numpy()
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
        assert off(steps[-1].gradient, stored["gradient_last"]) < TOLERANCE, case
        assert off(steps[-1].state, stored["state_last"]) < TOLERANCE, case
        if "gradient_first" in stored:
            assert off(steps[0].gradient, stored["gradient_first"]) < FIRST_TOLERANCE, case


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
        assert off(y, stored["y"]) == 0
        assert steps[0].time == int(stored["unet_first_t"][0])
        assert off(steps[0].output, stored["unet_first_out"]) < TOLERANCE
        assert off(guess, stored["restorer_first"]) < TOLERANCE
        assert off(mean, stored["mean_first"]) < TOLERANCE
        assert off(log_variance.exp(), stored["variance_first"]) < TOLERANCE
        assert off(steps[0].x0, stored["pred_xstart_first"]) < FIRST_TOLERANCE
        assert off(steps[0].state, stored["state_first"]) < TOLERANCE
        assert off(steps[-1].x0, stored["pred_xstart_last"]) < TOLERANCE
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
            assert off(restorer.arcface(shrunk(reference)), stored["emb_ref"]) < TOLERANCE
            assert off(shrunk(steps[0].x0), stored["emb_in_first"]) < TOLERANCE
            assert off(restorer.arcface(stored["emb_in_first"]), stored["emb_x0_first"]) < TOLERANCE
    assert checked


def test_full_size_layout(folder):
    official = json.loads((folder / "config.json").read_text())["official_defaults"]
    full = PGDiffConfig.load({name: official[name] for name in ("model_and_diffusion", "restorer", "arcface")})
    assert full == PGDiffConfig()
    for build, tensor in (
        (lambda: UNet(full.unet), "input_blocks.0.0.weight"),
        (lambda: SmoothSemantics(full.rrdb), "generator.conv_first.weight"),
        (lambda: ArcFace(full.arcface), "features.running_var"),
    ):
        with torch.device("meta"):
            ours = {name: list(value.shape) for name, value in build().state_dict().items()}
        assert ours == file_with(folder, tensor)[1]


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
        assert str(path) in str(told.value) and "\n" not in str(told.value)
