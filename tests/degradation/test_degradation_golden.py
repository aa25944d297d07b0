"""Equality with images made by the published code."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from ffhqref.degradation import Parameters, apply, get_degradation, legacy_sequence
from ffhqref.degradation.steps import degrade

from ..conftest import GOLDEN, GOLDEN_IMAGES

pytestmark = pytest.mark.golden


def need(path):
    if not path.exists():
        pytest.skip(f"no golden files at {path}")
    return path


def picture(path):
    with Image.open(path) as opened:
        sized = opened if opened.size == (512, 512) else opened.resize((512, 512))
        return np.array(sized.convert("RGB"))


@pytest.fixture(scope="module")
def record():
    return json.loads((need(GOLDEN / "degradation" / "cases.json")).read_text())


def by_level(record):
    levels = {}
    for case in record["cases"]:
        levels.setdefault(case["level"], []).append(case)
    return {level: sorted(cases, key=lambda case: case["order"]) for level, cases in levels.items()}


def test_legacy_sequence_equals_every_published_picture_and_draw(record):
    tolerance = 0 if record["opencv"] == cv2.__version__ else 1
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    for level, cases in by_level(record).items():
        images = [picture(need(GOLDEN_IMAGES / case["image"])) for case in cases]
        made = list(legacy_sequence(images, level, record["seed"]))
        assert len(made) == len(cases)
        for image, case, (low, parameters) in zip(images, cases, made, strict=True):
            published = np.array(Image.open(GOLDEN / "degradation" / case["output"]).convert("RGB"))
            assert low.shape == published.shape
            assert np.abs(low.astype(int) - published).max() <= tolerance, case["output"]
            drawn = {key: value for key, value in case.items() if key not in ("level", "order", "image", "output")}
            assert {key: getattr(parameters, key) for key in drawn} == drawn
            alone = Parameters.from_row(parameters.to_row())
            assert np.array_equal(apply(image, alone), low), "recorded parameters alone rebuild the image"
    assert np.array_equal(np.random.get_state()[1], state), "the global generator moved"  # noqa: NPY002


def test_faceme_preset_equals_the_published_training_condition():
    from safetensors.numpy import load_file

    folder = need(GOLDEN / "faceme_training")
    seen = 0
    for case in json.loads((folder / "cases.json").read_text()):
        record = json.loads((folder / case["record"]).read_text())
        tensors = load_file(folder / case["file"])
        for number, micro in enumerate(record["micro"]):
            for place, item in enumerate(micro["items"]):
                parameters = Parameters(
                    preset="faceme", seed=0, noise_skip=0, grey_noise_draw=0.5,
                    **{name: item[name] for name in ("kernel", "sigma_x", "sigma_y", "rotation", "scale")},
                    **{name: item[name] for name in ("noise_sigma", "jpeg_quality")},
                )  # fmt: skip
                target = tensors[f"m{number}.target_u8"][place]
                noise = tensors[f"m{number}.deg_noise_{place}"]
                made = degrade(target, parameters, noise, get_degradation("faceme"))
                published = (tensors[f"m{number}.control"][place].transpose(1, 2, 0) + 1) / 2
                assert np.abs(made.clip(0, 1) - published).max() < 1e-6
                seen += 1
    assert seen
