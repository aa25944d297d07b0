"""The tiny model in the package: it fits, works in bfloat16, and looks at its references."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch

from ffhqref.core.images import read_rgb, to_tensor
from ffhqref.restorers import make_restorer
from ffhqref.restorers.base import RestorationBatch
from ffhqref.zoo.refldm.tiny import WEIGHTS

SAMPLE = Path(__file__).parents[3] / "ffhqref" / "datasets" / "sample"


@pytest.fixture(scope="module")
def batch() -> RestorationBatch:
    """Two faces of the sample, blurred by averaging 16 pixels, with two other images as references."""
    files = sorted(SAMPLE.glob("**/*.jpg"))[:4]
    faces = to_tensor([read_rgb(path) for path in files])
    small = torch.nn.functional.avg_pool2d(faces[:2], 16)
    lq = torch.nn.functional.interpolate(small, size=(512, 512), mode="bilinear")
    return RestorationBatch(lq=lq, references=[faces[2:4], faces[3:4]], seeds=[1, 2], case_ids=["a", "b"])


def test_weights_are_small_and_complete() -> None:
    assert WEIGHTS.stat().st_size < 15e6
    with WEIGHTS.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    assert {entry["dtype"] for name, entry in header.items() if name != "__metadata__"} == {"F16"}


def images(made: object) -> torch.Tensor:
    assert isinstance(made, torch.Tensor)
    return made


def test_bfloat16_equals_float32(batch: RestorationBatch) -> None:
    """PSNR of at least 40 dB between the outputs (issue 5), by the definition of PSNR."""
    exact = images(make_restorer("refldm-tiny", device="cpu").restore(batch))
    half = make_restorer("refldm-tiny", device="cpu", dtype="bfloat16", first_stage_dtype="bfloat16")
    halved = images(half.restore(batch))
    assert not torch.equal(exact, halved)
    psnr = -10 * torch.log10(((exact - halved) ** 2).mean(dim=(1, 2, 3)))
    assert psnr.min() >= 40, psnr


def test_references_matter(batch: RestorationBatch) -> None:
    restorer = make_restorer("refldm-tiny", device="cpu")
    other = RestorationBatch(batch.lq, [1 - item for item in batch.references], batch.seeds, batch.case_ids)
    assert (images(restorer.restore(batch)) - images(restorer.restore(other))).abs().max() > 1 / 255


def test_labelled_as_what_it_is() -> None:
    info = make_restorer("refldm-tiny", device="cpu").info
    assert "demonstration" in info.summary
    assert re.search("not comparable", info.summary)
    assert any("London" in name for name in info.trained_on)
