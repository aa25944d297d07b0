"""One contract for everything in the registry, through the dry run that a user has too."""

import dataclasses
from pathlib import Path

import pytest
import torch

from ffhqref.errors import DependencyError, WeightsError
from ffhqref.restorers import RESTORERS, RestorationBatch, RestorerInfo, make_restorer
from ffhqref.restorers.check import check_restorer

from .conftest import tiny

TINY = Path(__file__).parent / "tiny"
"""What restorers with networks are made of here; for others, options under which they are quick enough."""


def made(name, folder):
    options = {}
    if (TINY / f"{name}.py").is_file():
        options = tiny(name).options(folder)
    try:
        return make_restorer(name, **{"device": "cpu", **options})
    except DependencyError as error:
        pytest.skip(str(error))
    except WeightsError as error:
        assert not options, error  # small random weights must load
        pytest.skip(str(error))


@pytest.mark.parametrize("name", RESTORERS.names())
def test_keeps_the_contract(name, tmp_path):
    assert check_restorer(made(name, tmp_path)) == []


@pytest.mark.parametrize("name", RESTORERS.names())
def test_description_is_complete(name, tmp_path):
    info = made(name, tmp_path).info
    assert info.name == name and info.summary and info.licence and info.proved_against
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
    assert fields == {"lq", "references", "seeds", "case_ids", "ages"}
