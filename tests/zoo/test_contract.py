"""One contract for everything in the registry, through the dry run that a user has too."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from ffhqref.core.errors import DependencyError, WeightsError
from ffhqref.restorers import RESTORERS, RestorationBatch, RestorerInfo, make_restorer
from ffhqref.restorers.check import check_restorer

from .conftest import tiny

TINY = Path(__file__).parent / "tiny"
"""What restorers with networks are made of here; for others, options under which they are quick enough."""


def tiny_options(name, folder):
    return tiny(name).options(folder) if (TINY / f"{name}.py").is_file() else {}


def made(name, options):
    try:
        return make_restorer(name, **{"device": "cpu", **options})
    except DependencyError as error:
        pytest.skip(str(error))
    except WeightsError as error:
        if not options.keys() <= {"device"}:  # small random weights must load
            raise
        pytest.skip(str(error))


@pytest.mark.parametrize("name", RESTORERS.names())
def test_keeps_the_contract(name, tmp_path):
    assert check_restorer(made(name, tiny_options(name, tmp_path))) == []


NETWORKS = (
    "asffnet", "codeformer", "daefr", "difface", "dmdnet", "dr2", "faceme", "gfpgan", "gpen", "instantrestore",
    "osdface", "pgdiff", "pmrf", "refldm", "restoreformer", "restoreformer_pp", "restorerid", "vqfr", "vqfr_v1",
)  # fmt: skip
"""Those that run on torch."""


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, "float32") for name in NETWORKS] + [("faceme", "auto"), ("refldm", "bfloat16"), ("refldm", "float16")],
)
def test_a_cuda_device_gives_the_pictures_of_the_cpu(name, dtype, tmp_path, cuda, request):
    options = tiny_options(name, tmp_path)
    if name in ("faceme", "instantrestore", "refldm", "restorerid"):
        options["dtype"] = dtype
    there = made(name, {**options, "device": cuda})
    if dtype == "auto":  # half precision on a GPU
        options["dtype"] = "float16"
    here = made(name, options)
    rng = torch.Generator().manual_seed(0)
    side, most = here.info.input_size or 64, here.info.max_references
    count = max(here.info.min_references, 2 if most is None else min(2, most))
    batch = RestorationBatch(
        lq=torch.rand((2, 3, side, side), generator=rng),
        references=[torch.rand((count, 3, side, side), generator=rng) for _ in range(2)],
        seeds=[1, 2],
        case_ids=["a", "b"],
    )
    assert there.device == cuda
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        expected, found = here.restore(batch), there.restore(batch)
    assert found.device.type == "cpu"
    assert found.dtype == torch.float32
    if "second_device" in request.fixturenames:
        assert request.getfixturevalue("second_device").operations > 100, "it worked somewhere else"
    if "second_device" in request.fixturenames and dtype == "float32":
        # not equal bit for bit: off the CPU torch's group norm reads its input in another order
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    else:  # on a GPU: TF32 and other orders of summing; never measured, so this finds gross faults only
        assert float((found - expected).abs().mean()) < 0.02


@pytest.mark.parametrize("name", RESTORERS.names())
def test_description_is_complete(name, tmp_path):
    info = made(name, tiny_options(name, tmp_path)).info
    assert info.name == name
    assert info.summary
    assert info.licence
    assert info.verified_against
    assert info.max_references is None or info.max_references >= info.min_references


class Good:
    """Keeps everything; the classes below each break one thing."""

    info = RestorerInfo(name="good", max_references=2, input_size=16)

    def restore(self, batch):
        return batch.lq * 0.5


class Raises(Good):
    def restore(self, batch):
        raise KeyError("weights")


class NotANumber(Good):
    def restore(self, batch):
        return batch.lq / 0


class Transposed(Good):
    def restore(self, batch):
        return batch.lq.permute(0, 2, 3, 1)


class Half(Good):
    def restore(self, batch):
        return batch.lq.half()


class Numpy(Good):
    def restore(self, batch):
        return batch.lq.numpy()


class MinusOneToOne(Good):
    def restore(self, batch):
        return batch.lq * 2 - 1


class InPlace(Good):
    def restore(self, batch):
        return batch.lq.mul_(0.5)


class Unseeded(Good):
    def restore(self, batch):
        return torch.rand_like(batch.lq)


class SecretlySeeded(Good):
    def restore(self, batch):
        return torch.stack([lq * 0 + seed % 100 / 100 for lq, seed in zip(batch.lq, batch.seeds, strict=True)])


class DeafToSeeds(Good):
    info = dataclasses.replace(Good.info, uses_seed=True)


class MixesCases(Good):
    def restore(self, batch):
        return batch.lq.mean(0, keepdim=True).expand_as(batch.lq).clone()


class OneCount(Good):
    def restore(self, batch):
        torch.stack(batch.references)  # as if every case had as many
        return batch.lq


class NeedsMore(Good):
    info = dataclasses.replace(Good.info, min_references=1, max_references=3)

    def restore(self, batch):
        for references in batch.references:
            references[1]
        return batch.lq * 0.5


class NeedsWholeBatch(Good):
    def restore(self, batch):
        if len(batch) < 2:
            raise RuntimeError("two at least")
        return batch.lq


class ChangesItsMind(Good):
    def restore(self, batch):
        self.info = dataclasses.replace(self.info, name="other")
        return batch.lq


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (Raises, "raises KeyError: 'weights'"),
        (NotANumber, "NaN or infinite"),
        (Transposed, r"wrong shape \[4, 16, 16, 3\], expected \[4, 3, 16, 16\]"),
        (Half, "torch.float16, expected torch.float32"),
        (Numpy, "returned ndarray"),
        (MinusOneToOne, "values from -1 to 1, expected 0..1"),
        (InPlace, "changes its input"),
        (Unseeded, "the same seeds give another result"),
        (SecretlySeeded, "uses_seed is False"),
        (DeafToSeeds, "uses_seed is True"),
        (MixesCases, "a case in a batch differs"),
        (OneCount, "raises RuntimeError"),
        (NeedsMore, "IndexError"),
        (NeedsWholeBatch, "a batch of one .* two at least"),
        (ChangesItsMind, "info"),
    ],
)
def test_dry_run_finds_each_fault(kind, words):
    import re

    problems = check_restorer(kind())
    assert any(re.search(words, problem) for problem in problems), problems
    assert all("\n" not in problem for problem in problems)


def test_dry_run_finds_nothing_in_a_good_one_and_shows_it_no_ground_truth():
    assert check_restorer(Good()) == []
    fields = {field.name for field in dataclasses.fields(RestorationBatch)}
    assert fields == {"lq", "references", "seeds", "case_ids", "ages", "files"}
