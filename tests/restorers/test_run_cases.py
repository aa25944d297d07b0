"""Cases through one call, alone, and against the clock."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
import torch

from ffhqref.restorers import PartialResult, RestorationBatch, Restorer, RestorerInfo, make_restorer
from ffhqref.restorers import run_cases as module
from ffhqref.restorers.duck_typed import as_restorer
from ffhqref.restorers.run_cases import Stopwatch, run_cases
from ffhqref.restorers.runner import RestoreResult
from ffhqref.restorers.table import restorations, timing


def batch_of(count, size=8):
    lq = torch.arange(count, dtype=torch.float32).view(count, 1, 1, 1).expand(count, 3, size, size) / 100
    return RestorationBatch(lq, [torch.zeros(0, 3, size, size)] * count, list(range(count)), list("abcdefgh"[:count]))


def test_a_case_tried_again_gets_its_own_untouched_input():
    seen = []

    def restore(batch):
        seen.append(batch.lq.clone())
        batch.lq.add_(1)  # a method that works in place
        if len(batch) > 1:
            raise RuntimeError("no batches")
        return batch.lq - 1

    batch = batch_of(3)
    outcomes = run_cases(restore, batch)
    assert [outcome.error for outcome in outcomes] == [None] * 3
    assert [float(one[0, 0, 0, 0]) for one in seen[1:]] == pytest.approx([0, 0.01, 0.02])
    assert torch.equal(batch.lq, batch_of(3).lq)


@pytest.mark.parametrize(
    "error", [MemoryError("no room"), torch.cuda.OutOfMemoryError("CUDA out of memory."), OSError("out of memory")]
)
def test_out_of_memory_is_told_whoever_raises_it(error):
    def restore(batch):
        raise error

    assert [outcome.error[:14] for outcome in run_cases(restore, batch_of(2))] == ["out of memory:"] * 2


def test_reasons_that_the_restorer_knows_are_final():
    calls = []

    def restore(batch):
        calls.append(len(batch))
        return PartialResult(batch.lq, {1: "no face"})

    assert [outcome.error for outcome in run_cases(restore, batch_of(3))] == [None, "no face", None]
    assert calls == [3]


class Ticking:
    """A clock that the restorers here move on."""

    now = 0.0


@pytest.fixture
def clock(monkeypatch):
    Ticking.now = 0.0
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: Ticking.now))
    return Ticking


class Loading:
    """Loads for three seconds in its first call, and takes a tenth of a second an image."""

    def __init__(self):
        self.loaded = False

    def restore(self, batch):
        Ticking.now += 0.1 * len(batch) + (0 if self.loaded else 3)
        self.loaded = True
        return batch.lq


def results_of(costs):
    return [
        RestoreResult(
            "m", "b", str(number), status="ok", seconds=None if cost.first_call else cost.seconds,
            first_seconds=cost.seconds if cost.first_call else None,
        )
        for number, cost in enumerate(costs)
    ]  # fmt: skip


def test_seconds_do_not_count_loading(clock):
    restorer, stopwatch, costs = Loading(), Stopwatch("cpu"), []
    for _ in range(3):
        costs += [outcome.cost for outcome in run_cases(restorer.restore, batch_of(2), stopwatch=stopwatch)]
    assert [cost.first_call for cost in costs] == [True, True, False, False, False, False]
    table = restorations(results_of(costs))
    assert table["seconds"].median() == pytest.approx(0.1)
    assert table["seconds"].count() == 4
    assert list(timing(results_of(costs))) == [
        "m: 1.6 s an image with loading, in the first call of a worker; then 0.1 s (median)"
    ]


def test_a_program_loads_at_each_call(clock):
    stopwatch = Stopwatch("", restarts=True)
    costs = [run_cases(Loading().restore, batch_of(1), stopwatch=stopwatch)[0].cost for _ in range(3)]
    assert all(cost.first_call for cost in costs)
    (line,) = timing(results_of(costs))
    assert line.endswith("nothing after it was timed")
    assert restorations(results_of(costs))["seconds"].isna().all()


def test_the_clock_waits_for_the_device(clock, monkeypatch):
    """Work that is queued on a GPU is done only when the device is waited for."""
    queued = []

    def synchronize(device):
        clock.now += sum(queued)
        queued.clear()

    for name, fake in (
        ("is_available", lambda: True), ("synchronize", synchronize),
        ("reset_peak_memory_stats", lambda device: None), ("max_memory_allocated", lambda device: 5),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, fake)
    stopwatch, costs = Stopwatch("cuda:0"), []
    for seconds in itertools.repeat(0.5, 2):
        with stopwatch.call(1):
            queued.append(seconds)
        costs.append(stopwatch.cost)
    assert [cost.seconds for cost in costs] == [0.5, 0.5]
    assert costs[1].peak_memory_bytes == 5
    assert not costs[1].first_call


def test_a_plug_in_gets_the_defaults_of_what_it_leaves_out():
    class Theirs:
        info = RestorerInfo(name="theirs")
        device = "cuda:0"
        quantization = "truncate"

        def restore(self, batch):
            return batch.lq

    made = as_restorer(Theirs(), "theirs")
    assert isinstance(made, Restorer)
    assert made.info is Theirs.info
    assert (made.quantization, made.version, made.batch_size, made.device) == ("truncate", "1", 1, "cuda:0")
    assert made.exclusive, "on a GPU"
    Theirs.exclusive = False
    assert not made.exclusive
    ours = make_restorer("lq")
    assert as_restorer(ours, "lq") is ours
