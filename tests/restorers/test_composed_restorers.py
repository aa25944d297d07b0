"""Composed restorers: against the parts run by hand, closed forms, SciPy, and what must be refused."""

import dataclasses
import itertools
import sys

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ffhqref.core.errors import ConfigError
from ffhqref.core.hashing import sha256_file
from ffhqref.core.images import read_rgb, save_png, to_tensor, to_uint8
from ffhqref.core.seeding import case_seed
from ffhqref.engine import LocalEngine, run_stage
from ffhqref.metrics import make_metric
from ffhqref.metrics.base import MetricBatch
from ffhqref.restorers import PartialResult, RestorationBatch, RestorerInfo, make_restorer
from ffhqref.restorers.colour import adain_transfer, wavelet_transfer
from ffhqref.restorers.composed.tiled import starts
from ffhqref.restorers.runner import RestoreRow, RestoreStage

SEEN: list[RestorationBatch] = []


class Noisy:
    """Adds noise of the case's seed; fails on cases whose first value is 1, knows of those with 2 that it cannot."""

    info = RestorerInfo(
        name="noisy", uses_seed=True, input_size=None, max_references=2, licence="MIT", trained_on=("FFHQ", "A"),
        weights=("noisy-1",), paper="Noise (2020)",
    )  # fmt: skip
    batch_size = 3
    quantization = "truncate"

    def __init__(self, amount=0.05, sha256="aa"):
        self.amount = amount
        self.weights_sha256 = {"noisy-1": sha256}

    def restore(self, batch):
        SEEN.append(batch)
        first = [round(float(lq[0, 0, 0]) * 255) for lq in batch.lq]
        if 1 in first:
            raise ValueError("one")
        out = batch.lq + self.amount * torch.stack([noise(seed, batch.lq.shape[1:]) for seed in batch.seeds])
        out = out.clamp(0, 1)
        for index, value in enumerate(first):
            if value == 3:
                out[index, 0, 0, 0] = float("nan")
        failed = {index: "two" for index, value in enumerate(first) if value == 2}
        return PartialResult(out, failed) if failed else out


class Half:
    """Half as bright, with at least one reference."""

    info = RestorerInfo(
        name="half", min_references=1, max_references=1, input_size=64, licence="S-Lab", commercial_use=False,
        trained_on=("A", "B"), weights=("half-1",),
    )  # fmt: skip
    weights_sha256 = {"noisy-1": "cc", "half-1": "bb"}

    def __init__(self, device="cpu"):
        self.device = device

    def restore(self, batch):
        SEEN.append(batch)
        return batch.lq * 0.5


class GlobalDraw(Noisy):
    """Draws from the global generator."""

    batch_size = 1

    def restore(self, batch):
        return torch.rand_like(batch.lq)


def noise(seed, shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Noisy.__module__])
    SEEN.clear()


def part(kind, **options):
    return {"_target_": f"{__name__}.{kind.__name__}", **options}


def batch_of(count=2, side=64, references=2, first=100):
    rng = np.random.default_rng(0)
    lq = torch.from_numpy(np.round(rng.uniform(60, 200, (count, 3, side, side))).astype(np.float32)) / 255
    firsts = first if isinstance(first, (list, tuple)) else [first] * count
    for index, value in enumerate(firsts):
        lq[index, 0, 0, 0] = value / 255
    shown = [torch.from_numpy(rng.random((references, 3, side, side), dtype=np.float32)) for _ in range(count)]
    return RestorationBatch(lq, shown, [10 + i for i in range(count)], [str(i) for i in range(count)], [5.0] * count)


# colour


def test_wavelet_is_scipys_convolution_level_by_level():
    rng = np.random.default_rng(1)
    one, other = rng.random((2, 3, 40, 50))

    def low(planes):
        for level in range(5):
            taps = np.zeros(2 ** (level + 1) + 1)
            taps[[0, len(taps) // 2, -1]] = 0.25, 0.5, 0.25
            for axis in (1, 2):
                planes = scipy.ndimage.convolve1d(planes, taps, axis=axis, mode="nearest")
        return planes

    made = wavelet_transfer(torch.from_numpy(one)[None], torch.from_numpy(other)[None])[0].numpy()
    np.testing.assert_allclose(made, one - low(one) + low(other), atol=1e-12)


def test_wavelet_takes_away_a_cast_and_keeps_details():
    colours = batch_of(1).lq
    cast = torch.tensor([0.1, -0.05, 0.02]).view(1, 3, 1, 1)
    torch.testing.assert_close(wavelet_transfer(colours + cast, colours), colours, atol=1e-6, rtol=0)
    torch.testing.assert_close(wavelet_transfer(colours, colours), colours, atol=1e-6, rtol=0)


def test_adain_gives_each_channel_the_wanted_mean_and_deviation():
    one, other = batch_of(2).lq.double()
    made = adain_transfer((one * torch.tensor([0.3, 0.5, 0.9], dtype=torch.double).view(3, 1, 1))[None], other[None])[0]
    for channel in range(3):
        np.testing.assert_allclose(made[channel].mean(), other[channel].mean(), atol=1e-9)
        np.testing.assert_allclose(made[channel].std(), other[channel].std(), rtol=1e-3)
    flat = torch.full((1, 3, 8, 8), 0.5)
    torch.testing.assert_close(adain_transfer(flat, flat * 0.5), flat * 0.5)


@pytest.mark.parametrize(("how", "function"), [("wavelet", wavelet_transfer), ("adain", adain_transfer)])
def test_colours_come_from_the_input_of_the_wrapped_restorer(how, function):
    batch = batch_of(4)
    made = make_restorer("colour_transfer", of=part(Half), how=how).restore(batch)
    torch.testing.assert_close(made, function(batch.lq * 0.5, batch.lq).clamp(0, 1))
    inner = {"name": "colour_transfer", "of": part(Half), "how": how}
    made = make_restorer("chain", steps=["tv", inner]).restore(batch)
    cleaned = make_restorer("tv").restore(batch)
    torch.testing.assert_close(made, function(cleaned * 0.5, cleaned).clamp(0, 1))
    with pytest.raises(ConfigError, match=r"how=wavelett. Did you mean 'wavelet'"):
        make_restorer("colour_transfer", of="tv", how="wavelett")
    with pytest.raises(ConfigError, match="levels=0, expected a whole number from 1 to 8"):
        make_restorer("colour_transfer", of="tv", levels=0)


# chain


def test_chain_is_its_steps_by_hand():
    batch = batch_of(5)
    made = make_restorer("chain", steps=[{"name": "bicubic", "factor": 2}, part(Half)]).restore(batch)
    first = make_restorer("bicubic", factor=2).restore(batch)
    assert torch.equal(made, first * 0.5)
    seen = SEEN[0]
    assert (seen.ages, seen.seeds, seen.case_ids) == ([5.0], [10], ["0"]), "one at a time, as it takes them"
    assert seen.references[0].shape[0] == 1
    assert torch.equal(seen.references[0], batch.references[0][:1])


def test_chain_hands_a_part_no_more_than_it_takes_and_every_seed():
    batch = batch_of(5)
    made = make_restorer("chain", steps=[part(Noisy), part(Noisy)]).restore(batch)
    assert [len(seen) for seen in SEEN] == [3, 2, 3, 2]
    once = torch.stack([(lq + 0.05 * noise(10 + i, lq.shape)).clamp(0, 1) for i, lq in enumerate(batch.lq)])
    wanted = torch.stack([(lq + 0.05 * noise(10 + i, lq.shape)).clamp(0, 1) for i, lq in enumerate(once)])
    torch.testing.assert_close(made, wanted)


def test_a_failing_case_fails_alone_and_is_told_with_its_step():
    batch = batch_of(5, first=[100, 1, 2, 3, 100])
    made = make_restorer("chain", steps=["lq", part(Noisy), part(Half)]).restore(batch)
    assert isinstance(made, PartialResult)
    told = "step 2 (Noisy): "
    nan = "1 of 12288 values are NaN or infinite"
    assert made.reasons == {1: told + "ValueError: one", 2: told + "two", 3: told + nan}
    assert {case for seen in SEEN if seen.lq.shape[0] == 1 for case in seen.case_ids} >= {"0", "4"}
    alone = make_restorer("chain", steps=[part(Noisy), part(Half)]).restore(batch_of(5))
    for index in (0, 4):
        assert torch.equal(made.images[index], alone[index])


def test_whole_is_described_by_its_parts():
    whole = make_restorer("chain", steps=[part(Noisy), part(Half), part(Noisy, sha256="dd")])
    info = whole.info
    assert info == RestorerInfo(
        name="chain", summary="Noisy, then Half, then Noisy", min_references=1, max_references=2, input_size=64,
        uses_seed=True, licence="MIT; S-Lab", commercial_use=False, trained_on=("FFHQ", "A", "B"),
        paper="Noise (2020)", weights=("noisy-1", "half-1"), verified_against="Noisy: ; Half: ",
    )  # fmt: skip
    assert whole.quantization == "truncate"
    assert whole.batch_size == 3
    assert whole.weights_sha256 == {"noisy-1": "aa", "noisy-1 (part 2)": "cc", "half-1": "bb", "noisy-1 (part 3)": "dd"}
    assert make_restorer("chain", device="cuda:1", steps=["lq", part(Half)]).device == "cuda:1"
    assert make_restorer("chain", device="cuda:1", steps=["lq", part(Half)]).exclusive
    assert not make_restorer("chain", device="cuda:1", steps=["lq", "tv"]).exclusive
    assert make_restorer("chain", steps=["lq", "lq"]).info.passthrough
    assert make_restorer("chain", steps=["lq", "reference"]).info.min_references == 1


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("chain", {}, r"expected steps=\["),
        ("chain", {"steps": "tv"}, r"expected steps=\["),
        ("chain", {"steps": ["tv", "bicubik"]}, "unknown restorer 'bicubik'. Did you mean 'bicubic'"),
        ("chain", {"steps": [{"factor": 2}]}, r"steps\[0\] names no restorer"),
        ("chain", {"steps": [{"name": "bicubic", "factr": 2}]}, "unknown option 'factr'. Did you mean 'factor'"),
        ("tiled", {}, "of names no restorer"),
        ("tiled", {"of": "tv", "size": 32, "overlap": 32}, "expected whole numbers, 0 <= overlap < size"),
        ("tiled", {"of": {"_target_": "half"}, "size": 32, "overlap": 4}, "names no module: package.module.Class"),
        ("best_of", {"of": "tv"}, "'tv' makes the same of every seed"),
        ("best_of", {"of": "tv", "n": 1}, "n=1, expected a whole number of at least 2"),
    ],
)
def test_wrong_configs_are_one_line(name, options, words):
    with pytest.raises(ConfigError, match=words) as caught:
        make_restorer(name, **options)
    assert "\n" not in str(caught.value)


def test_parts_of_different_sizes_do_not_go_together(monkeypatch):
    monkeypatch.setattr(Noisy, "info", dataclasses.replace(Noisy.info, input_size=32))
    with pytest.raises(ConfigError, match=r"different sizes: \[32, 64\]"):
        make_restorer("chain", steps=[part(Noisy), part(Half)])
    with pytest.raises(ConfigError, match="'Half' takes images of 64 pixels, not 32"):
        make_restorer("tiled", of=part(Half), size=32, overlap=8)


# best of n


def test_best_of_picks_what_the_metric_prefers():
    batch = batch_of(3, side=192)
    niqe = make_metric("niqe")
    made = make_restorer("best_of", of=part(Noisy), n=3, by="niqe").restore(batch)
    for index, lq in enumerate(batch.lq):
        seeds = [10 + index, *(case_seed(10 + index, "best_of", draw) for draw in (1, 2))]
        tried = torch.stack([(lq + 0.05 * noise(seed, lq.shape)).clamp(0, 1) for seed in seeds])
        values = niqe(MetricBatch(output=to_tensor(to_uint8(tried, "truncate"))))
        assert torch.equal(made[index], tried[int(np.argmin(values))]), values


def test_best_of_against_references(monkeypatch):
    class Nearest:
        signature, higher_is_better, needs = "nearest to the last reference", True, frozenset({"references"})

        def __call__(self, batch):
            assert batch.gt is None
            assert [len(strip) for strip in batch.references] == [2, 2]
            pairs = zip(batch.output, batch.references, strict=True)
            return np.array([-float((output - strip[-1]).abs().mean()) for output, strip in pairs])

    monkeypatch.setattr("ffhqref.restorers.composed.best_of.make_metric", lambda name, **options: Nearest())
    restorer = make_restorer("best_of", of=part(Noisy), n=3, by="mine")
    assert restorer.info.min_references == 1
    assert restorer.info.max_references is None
    assert restorer.info.uses_seed
    batch = batch_of(2)
    made = restorer.restore(batch)
    for index, lq in enumerate(batch.lq):
        seeds = [10 + index, *(case_seed(10 + index, "best_of", draw) for draw in (1, 2))]
        tried = [(lq + 0.05 * noise(seed, lq.shape)).clamp(0, 1) for seed in seeds]
        assert torch.equal(made[index], min(tried, key=lambda one: (one - batch.references[index][-1]).abs().mean()))


def test_best_of_ranks_undefined_values_last_and_fails_where_all_seeds_do(monkeypatch):
    class Sometimes:
        signature, higher_is_better, needs = "sometimes", True, frozenset()
        values = iter([[np.nan, 5.0], [1.0, np.nan], [0.5, 6.0]])

        def __call__(self, batch):
            return np.array([*next(self.values), 0.0][: len(batch)])

    monkeypatch.setattr("ffhqref.restorers.composed.best_of.make_metric", lambda name, **options: Sometimes())
    batch = batch_of(3, first=[100, 100, 2])
    made = make_restorer("best_of", of=part(Noisy), n=3, by="mine").restore(batch)
    seeds = [case_seed(10, "best_of", 1), case_seed(11, "best_of", 2)]
    for index, seed in enumerate(seeds):
        assert torch.equal(made.images[index], (batch.lq[index] + 0.05 * noise(seed, (3, 64, 64))).clamp(0, 1))
    assert made.reasons == {2: "two"}


@pytest.mark.parametrize("name", ["psnr", "ssim", "ids"])
def test_best_of_may_not_look_at_the_ground_truth(name):
    with pytest.raises(ConfigError, match=f"by={name} compares with the ground truth"):
        make_restorer("best_of", of=part(Noisy), by=name)


def test_best_of_seeds_global_generators_for_each_draw():
    one = make_restorer("best_of", of=part(GlobalDraw), n=2).restore(batch_of(1, side=128))
    other = make_restorer("best_of", of=part(GlobalDraw), n=2).restore(batch_of(1, side=128))
    assert torch.equal(one, other)
    drawn = []
    for seed in (10, case_seed(10, "best_of", 1)):
        torch.manual_seed(seed)
        drawn.append(torch.rand(1, 3, 128, 128))
    assert any(torch.equal(one, draw) for draw in drawn)


# tiles


@given(length=st.integers(1, 300), size=st.integers(1, 120), data=st.data())
def test_tiles_cover_without_leaving(length, size, data):
    overlap = data.draw(st.integers(0, size - 1))
    begins = starts(length, size, overlap)
    assert begins[0] == 0
    assert begins == sorted(set(begins))
    assert begins == [0] if length <= size else begins[-1] + size == length
    assert all(after - before <= size - overlap for before, after in itertools.pairwise(begins))


@settings(max_examples=20, deadline=None)
@given(height=st.integers(5, 60), width=st.integers(5, 60), size=st.integers(4, 40), data=st.data())
def test_tiling_a_pointwise_restorer_changes_nothing(height, width, size, data):
    sys.modules.setdefault(__name__, sys.modules[Noisy.__module__])
    overlap = data.draw(st.integers(0, size - 1))
    batch = RestorationBatch(torch.rand(2, 3, height, width), [torch.zeros(0, 3, 1, 1)] * 2, [1, 2], ["a", "b"])
    made = make_restorer("tiled", of="lq", size=size, overlap=overlap).restore(batch)
    torch.testing.assert_close(made, batch.lq, atol=1e-6, rtol=1e-5)


def test_tiles_blend_linearly_and_have_seeds_of_their_own():
    batch = batch_of(1, side=64)
    made = make_restorer("tiled", of=part(Noisy), size=40, overlap=16).restore(batch)
    assert [seen.seeds[0] for seen in SEEN] == [10, *(case_seed(10, "tile", n) for n in (1, 2, 3))]
    assert [tuple(seen.lq.shape[-2:]) for seen in SEEN] == [(40, 40)] * 4
    left = batch.lq[0, :, :40, :40] + 0.05 * noise(10, (3, 40, 40))
    right = batch.lq[0, :, :40, 24:] + 0.05 * noise(case_seed(10, "tile", 1), (3, 40, 40))
    torch.testing.assert_close(made[0, :, :24, :24], left[:, :24, :24].clamp(0, 1))
    middle = 0.5 * (left[:, :24, 31:33].mean(-1) + right[:, :24, 7:9].mean(-1))  # columns 31 and 32 of 24..39
    torch.testing.assert_close(made[0, :, :24, 31:33].mean(-1), middle, atol=0.01, rtol=0)


def test_no_tile_size_is_the_restorer_itself_and_a_failing_tile_is_told():
    batch = batch_of(2)
    assert torch.equal(make_restorer("tiled", of=part(Noisy)).restore(batch), Noisy().restore(batch))
    made = make_restorer("tiled", of=part(Noisy), size=40, overlap=8).restore(batch_of(2, first=[1, 100]))
    assert made.reasons == {0: "tile 1 of 4: ValueError: one"}


# in a run


@pytest.fixture
def rows(tmp_path, sample_folder):
    made = []
    for number, source in enumerate(sorted(sample_folder.rglob("*.jpg"))[:3]):
        lq, reference = tmp_path / f"lq{number}.png", tmp_path / f"ref{number}.png"
        save_png(lq, read_rgb(source, 512))
        save_png(reference, read_rgb(source, 512)[:, ::-1].copy())
        made.append(
            {
                "benchmark": "severe", "case_id": str(number), "lq_path": str(lq), "lq_sha256": sha256_file(lq),
                "reference_paths": [str(reference)], "reference_sha256": [sha256_file(reference)], "seed": 7,
                "age": None, "out_path": f"out/{number}.png",
            }
        )  # fmt: skip
    return made


def typed(rows):
    return [RestoreRow(**row) for row in rows]


def test_failures_inside_become_rows_and_a_second_run_does_nothing(tmp_path, rows):
    picture = read_rgb(rows[1]["lq_path"])
    picture[0, 0] = 2
    save_png(rows[1]["lq_path"], picture)
    rows[1]["lq_sha256"] = None
    options = {"steps": ["bicubic", part(Noisy)]}
    options["steps"][0] = {"name": "bicubic", "factor": 1}

    def run():
        stage = RestoreStage(tmp_path, "mine", options, restorer="chain")
        return run_stage(stage, typed(rows), engine=LocalEngine(1), journal_dir=tmp_path / "journal")

    results = run()
    assert [result.status for result in results] == ["ok", "failed", "ok"]
    assert results[1].error == "step 2 (Noisy): two"
    count = len(SEEN)
    assert run() == results
    assert len(SEEN) == count


def test_key_follows_the_parts(tmp_path, rows):
    def key(kind="chain", **options):
        return RestoreStage(tmp_path, "mine", options, restorer=kind).key(RestoreRow(**rows[0]))

    keys = [
        key(steps=["tv", part(Noisy)]), key(steps=[part(Noisy), "tv"]), key(steps=["tv", part(Noisy, amount=0.1)]),
        key(steps=["tv", part(Noisy, sha256="bb")]), key("tiled", of="tv"), key("tiled", of="tv", size=99),
        key("colour_transfer", of="tv"), key("colour_transfer", of="tv", how="adain"),
        key("best_of", of=part(Noisy)), key("best_of", of=part(Noisy), n=3),
    ]  # fmt: skip
    assert len(set(keys)) == len(keys)
    assert key(steps=["tv", part(Noisy)], batch_size=2) == keys[0]


def test_plain_restorers_may_return_partial_results_too(tmp_path, rows):
    picture = read_rgb(rows[1]["lq_path"])
    picture[0, 0] = 2
    save_png(rows[1]["lq_path"], picture)
    rows[1]["lq_sha256"] = None
    results = RestoreStage(tmp_path, "mine", part(Noisy)).process(typed(rows))
    assert [result.error for result in results] == [None, "two", None]
    assert [len(seen) for seen in SEEN] == [3], "and are not called again for them"


def test_cases_with_the_same_references_share_batches(tmp_path, rows, monkeypatch):
    monkeypatch.setattr(Noisy, "groups_references", True, raising=False)
    monkeypatch.setattr(Noisy, "batch_size", 2)
    same = [{**rows[number % 2], "case_id": f"{number}", "out_path": f"out/{number}.png"} for number in range(4)]
    stage = RestoreStage(tmp_path, "mine", part(Noisy))
    results = run_stage(stage, typed(same), engine=LocalEngine(1), journal_dir=tmp_path / "journal")
    assert [result.case_id for result in results] == ["0", "1", "2", "3"], "in the order of the rows"
    assert sorted(seen.case_ids for seen in SEEN) == [["0", "2"], ["1", "3"]]
