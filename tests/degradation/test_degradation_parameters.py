"""Presets and draws."""

import dataclasses
import itertools
import math
import random
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

from ffhqref.core.errors import ConfigError
from ffhqref.core.hashing import content_key
from ffhqref.degradation import DEGRADATIONS, Degradation, Parameters, apply, draw, get_degradation, legacy_sequence
from ffhqref.store import tables

PUBLISHED = {  # published ranges: sigma, scale, noise, JPEG
    "refldm-train": (0, 16, 1, 32, 0, 20, 30, 100),
    "moderate": (0, 8, 1, 8, 0, 15, 60, 100),
    "severe": (8, 16, 8, 32, 0, 20, 30, 100),
    "faceme": (0.2, 10, 1, 16, 0, 15, 30, 100),
    "codeformer-s2": (1, 15, 4, 30, 0, 20, 30, 80),
    "codeformer-s3-small": (0.1, 10, 1, 12, 0, 15, 60, 100),
    "codeformer-s3-large": (1, 15, 4, 30, 0, 20, 30, 80),
    "gfpgan": (0.1, 10, 0.8, 8, 0, 20, 60, 100),
    "vqfr": (0.1, 10, 0.8, 8, 0, 20, 60, 100),
    "gpen": (0.1, 10, 0.8, 8, 0, 20, 60, 100),
    "difface-train": (0.1, 15, 0.8, 32, 0, 20, 30, 100),
    "difface-test": (4, 16, 4, 40, 1, 20, 30, 70),
    "instantrestore": (0.1, 12, 1, 12, 10, 20, 10, 19),
}


def test_every_preset_has_the_published_ranges():
    assert {
        preset.name: (*preset.sigma, *preset.scale, *preset.noise, *preset.jpeg)
        for preset in map(get_degradation, DEGRADATIONS)
    } == PUBLISHED
    assert all(get_degradation(name).source for name in DEGRADATIONS)


RULES = {
    "moderate": "82366d13e6afbe556dcc765cf0cf3b55aa9632643f7cfe29ad4b2124c0bc58e5",
    "severe": "987742b85c6b0570d4260214cf5a8b15bbd97b99b8cd4c5d20138b7c1cea41de",
    "refldm-train": "dfd998ba1e5f2c7423ec693b8ced0cc8c3c9b68aff6024ff642418c521bfcc05",
    "faceme": "08c136e70bbe5af47182fe6205116914ef1649eb071e0a60a957cb1368ed1549",
    "codeformer-s2": "8a9b8b4f9a8582e7c1ed886422fc67ce4aa71a5517d17f02bd0761921c2eeb53",
    "codeformer-s3-small": "35b7fa8bd8eebbdfab8b4d974ddca2ef7e5a5607d93fc7a47c6bd88680bf403d",
    "codeformer-s3-large": "1e908d106638fd399a42eabe9e092681247e8bd04deecd053392bc17b21a61a9",
    "gfpgan": "9e17e2abe7a51ea40d286fac6db0e97431f1591efde86ce616c305244984956b",
    "vqfr": "2fec25e5044781abd5130fcb51de275a84e9d96cfdf5dc79078381d1382477a8",
    "gpen": "774ffa165f59259422442ae28aaa3701158d8cd3ce2ae1e07f2fd7709221da0c",
    "difface-train": "e235215495ec2f8f63553add64da59ef12275ba5e0d4ee6aa1d48518257affb0",
    "difface-test": "da092ec18d41de759aa3149fe3fec76001fac06df4c62d1aeb81db87b3decbf0",
    "instantrestore": "940ea862a92dd2d656f91be892aef46caa193b6e71c9622c141e7f5e12c588f3",
}
"""Part of the content keys in users' workspaces, as it was while the figures were Python."""


def test_the_files_hold_the_very_rules_that_were_published_in_code():
    assert {name: content_key(get_degradation(name).rules()) for name in DEGRADATIONS} == RULES


OWN = {"sigma": [4, 4], "scale": [8, 8], "noise": [0, 0], "jpeg": [90, 90]}


def test_own_degradations_from_a_file_and_from_options(tmp_path):
    (tmp_path / "mild.yaml").write_text("sigma: [4, 4]\nscale: [8, 8]\nnoise: [0, 0]\njpeg: [90, 90]\n")
    from_file, given = get_degradation(tmp_path / "mild.yaml"), get_degradation(OWN, "mild")
    assert from_file == given
    assert (given.name, given.kernels) == ("mild", (("iso", 0.5), ("aniso", 0.5)))


AXES = [["sigma_x", [1]], ["rotation", [0]], ["scale", [4, 8]], ["noise_sigma", [1]], ["jpeg_quality", [50]]]


def test_an_own_grid_is_drawn_from():
    own = get_degradation({**OWN, "grid": {"axes": AXES, "sigma_y": [3]}}, "mild")
    assert {draw(own, 1, str(number)).scale for number in range(20)} == {4, 8}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sigm": [1, 2]}, "unknown key 'benchmark.mild.degradation.sigm'. Did you mean 'sigma'?"),
        ({"sigma": [8, 1]}, "benchmark.mild.degradation.sigma=[8, 1]: expected the lower end first, [1, 8]"),
        ({"sigma": 4}, "benchmark.mild.degradation.sigma=4: expected a list"),
        ({"jpeg": [90, 101]}, "expected numbers from 0 to 100"),
        ({"scale": [0, 8]}, "expected numbers from 0.1 on"),
        ({"noise": [-1, 8]}, "expected numbers from 0 on"),
        ({"kernels": [["round", 1.0]]}, "expected iso or aniso"),
        ({"kernel_size": 40}, "expected an odd number"),
        ({"grey_probability": 2}, "from 0 to 1"),
        ({"sigma": [math.nan, 4]}, "benchmark.mild.degradation.sigma[0]=nan: expected a number"),
        ({"noise": [0, math.inf]}, "benchmark.mild.degradation.noise[1]=inf: expected a number"),
        ({"scale": [1.5, 4.5], "integers": ["scale"]}, "scale=[1.5, 4.5]: drawn as a whole number"),
        (
            {"grid": {"axes": [["sigmax", [1]]], "sigma_y": [1]}},
            "expected each of sigma_x, rotation, scale, noise_sigma",
        ),
        ({"grid": {"axes": [*AXES[:4], ["jpeg_quality", [101]]], "sigma_y": [1]}}, "jpeg_quality: expected values"),
        ({"grid": {"axes": AXES, "sigma_y": []}}, "grid.sigma_y=[]: expected values from 0 on"),
    ],
)
def test_a_mistake_in_an_own_degradation_is_one_line(change, said):
    with pytest.raises(ConfigError, match=re.escape(said)) as caught:
        get_degradation({**OWN, **change}, "mild")
    assert "\n" not in str(caught.value)


def test_a_missing_option_is_named():
    with pytest.raises(ConfigError, match=r"degradation\.jpeg is missing"):
        get_degradation({key: value for key, value in OWN.items() if key != "jpeg"}, "mild")


def test_unknown_name_is_one_line_with_the_nearest():
    for call in (lambda: get_degradation("sever"), lambda: draw("sever", 1, "a")):
        with pytest.raises(ConfigError, match=r"unknown degradation 'sever'\. Did you mean 'severe'") as caught:
            call()
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="sever"):
        legacy_sequence([], "sever", 1)


@pytest.mark.parametrize("name", sorted(set(DEGRADATIONS) - {"difface-test", "instantrestore"}))
def test_draws_are_uniform_over_the_ranges(name):
    preset = get_degradation(name)
    drawn = [draw(preset, 7, f"{number:05d}") for number in range(1000)]
    for values, (low, high) in (
        ([one.sigma_x for one in drawn], preset.sigma),
        ([one.sigma_y for one in drawn if one.kernel == "aniso"], preset.sigma),
        ([one.rotation for one in drawn if one.kernel == "aniso"], (-math.pi, math.pi)),
        ([one.scale for one in drawn], preset.scale),
        ([one.noise_sigma for one in drawn], preset.noise),
        ([one.jpeg_quality for one in drawn], preset.jpeg),
    ):
        assert stats.kstest(values, "uniform", (low, high - low)).pvalue > 1e-4
    isotropic = [one for one in drawn if one.kernel == "iso"]
    assert 400 < len(isotropic) < 600
    assert all(one.sigma_y == one.sigma_x and one.rotation == 0 for one in isotropic)
    # the kernel type must not follow the blur, nor one draw another
    assert stats.ks_2samp([one.sigma_x for one in isotropic], [one.sigma_x for one in drawn]).pvalue > 1e-4
    columns = np.array([[one.sigma_x, one.scale, one.noise_sigma, one.jpeg_quality] for one in drawn])
    assert np.abs(np.corrcoef(columns.T) - np.eye(4)).max() < 0.12
    for chance, counted in (
        (preset.grey_probability, sum(one.grey for one in drawn)),
        (preset.colour_shift_probability, sum(one.colour_shift is not None for one in drawn)),
    ):
        assert stats.binomtest(counted, len(drawn), chance or 0.0).pvalue > 1e-4


def test_instantrestore_draws_whole_numbers_to_both_ends():
    drawn = [draw("instantrestore", 1, str(number)) for number in range(600)]
    assert {one.scale for one in drawn} == set(range(1, 13))
    assert {one.jpeg_quality for one in drawn} == set(range(10, 20))
    assert {one.kernel for one in drawn} == {"aniso"}
    with pytest.raises(ConfigError, match="no legacy sequence"):
        legacy_sequence([], "instantrestore", 1)


def test_draw_is_keyed_by_seed_preset_and_image_only():
    names = [f"{number:05d}" for number in range(50)]
    forward = {name: draw("severe", 3, name) for name in names}
    np.random.seed(0), random.seed(0)  # noqa: NPY002
    assert forward == {name: draw("severe", 3, name) for name in reversed(names)}
    others = [draw("severe", 4, "00000"), draw("moderate", 3, "00000"), forward["00001"]]
    assert len({one.seed for one in [forward["00000"], *others]}) == 4


def test_a_preset_of_your_own_needs_no_registration():
    own = Degradation(name="mine", sigma=(2, 2), scale=(4, 4), noise=(0, 0), jpeg=(90, 90), source="test")
    drawn = draw(own, 1, "a")
    assert (drawn.preset, drawn.sigma_x, drawn.scale, drawn.noise_sigma) == ("mine", 2, 4, 0)
    image = np.full((64, 48, 3), 77, np.uint8)
    assert np.array_equal(apply(image, drawn, own), image)
    with pytest.raises(ConfigError, match="mine"):
        apply(image, drawn)


@given(
    seed=st.integers(0, 2**62),
    image_id=st.text(min_size=1, max_size=8),
    name=st.sampled_from(sorted(DEGRADATIONS)),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
)
@settings(max_examples=60, deadline=None)
def test_any_size_gives_a_picture_that_its_row_rebuilds(seed, image_id, name, height, width):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    drawn = draw(name, seed, image_id)
    low = apply(image, drawn)
    assert low.shape == image.shape
    assert low.dtype == np.uint8
    assert np.array_equal(apply(image, Parameters.from_row(drawn.to_row())), low)


@pytest.mark.parametrize("name", ["gfpgan", "gpen", "severe", "codeformer-s2", "difface-test"])
def test_the_table_alone_rebuilds_keyed_and_legacy_pictures(tmp_path, name):
    rng = np.random.default_rng(5)
    # odd sides leave a normal value over for the next image
    images = [rng.integers(0, 256, (53 + 2 * number, 51, 3), dtype=np.uint8) for number in range(12)]
    made = dict(enumerate(legacy_sequence(images, name, 11)))
    assert name == "difface-test" or any(one.noise_carry is not None for _, one in made.values())
    for number, image in enumerate(images):
        drawn = draw(name, 11, str(number))
        made[number + 100] = (apply(image, drawn), drawn)
    rows = [
        {**one.to_row(), "target_id": str(key), "lq_path": None, "lq_sha256": None, "error": None}
        for key, (_, one) in made.items()
    ]
    tables.write_table(tmp_path, "degradations", pd.DataFrame(rows))
    for row in tables.read_table(tmp_path, "degradations").to_dict("records"):
        key = int(row["target_id"])
        recorded = Parameters.from_row(row)
        assert recorded == made[key][1]
        assert np.array_equal(apply(images[key % 100], recorded), made[key][0])


def test_legacy_draws_follow_the_two_seeded_generators():
    """A plain walk through both generators, with the sizes of the noise worked out by hand."""
    images = [np.zeros((40, 60, 3), np.uint8)] * 8
    chooser, state = random.Random(99), np.random.RandomState(99)
    for _, one in legacy_sequence(images, "gfpgan", 99):
        kernel = chooser.choices(["iso", "aniso"], [0.5, 0.5])[0]
        sigma_x = state.uniform(0.1, 10)
        assert (one.kernel, one.sigma_x) == (kernel, sigma_x)
        if kernel == "aniso":
            assert (one.sigma_y, one.rotation) == (state.uniform(0.1, 10), state.uniform(-math.pi, math.pi))
        scale = state.uniform(0.8, 8)
        assert (one.scale, one.noise_sigma) == (scale, state.uniform(0, 20))
        assert one.grey_noise_draw == state.uniform()
        state.randn(int(40 // scale), int(60 // scale), 3)
        assert one.jpeg_quality == state.uniform(60, 100)
        shift = state.uniform(-20 / 255, 20 / 255, 3) if state.uniform() < 0.3 else None
        assert one.colour_shift == (None if shift is None else tuple(shift))
        assert one.grey == (state.uniform() < 0.01)


def test_difface_grid_is_complete_and_in_the_order_of_its_loops():
    grid = get_degradation("difface-test").grid
    assert len(grid) == 4000
    names = ("jpeg_quality", "scale", "noise_sigma", "sigma_x", "rotation")
    loops = itertools.product(
        [30, 40, 50, 60, 70], range(4, 41, 4), [1, 5, 10, 15, 20], [4, 8, 12, 16],
        [0, math.pi / 4, math.pi / 2, 3 * math.pi / 4],
    )  # fmt: skip
    assert [tuple(grid.cell(index)[name] for name in names) for index in range(4000)] == list(loops)
    chooser = random.Random(10000)
    tiny = itertools.repeat(np.zeros((8, 8, 3), np.uint8), 4001)
    made = legacy_sequence(tiny, "difface-test", 10000)
    drawn = [parameters for _, parameters in itertools.islice(made, 4000)]
    assert [one.sigma_y for one in drawn] == [chooser.choice([4, 8, 12, 16]) for _ in range(4000)]
    assert [one.scale for one in drawn] == [grid.cell(index)["scale"] for index in range(4000)]
    with pytest.raises(ConfigError, match="grid of 4000"):
        next(made)


def test_legacy_refuses_a_seed_numpy_would_refuse():
    with pytest.raises(ConfigError, match="4294967295"):
        legacy_sequence([], "severe", 2**32)


def test_boundary_objects_are_frozen():
    for thing, error in (
        (get_degradation("severe"), ValidationError),
        (draw("severe", 1, "a"), dataclasses.FrozenInstanceError),
    ):
        with pytest.raises(error):
            thing.scale = 1
