"""The restore runner: statuses, isolation, seeds, references, resuming, plug-ins of other packages."""

import errno
import importlib
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
import torch

from ffhqref import tables
from ffhqref.engine import LocalEngine, run_stage
from ffhqref.errors import ConfigError
from ffhqref.hashing import sha256_file
from ffhqref.images import read_rgb, save_png, to_tensor
from ffhqref.restorers import RESTORERS, RestorerInfo
from ffhqref.restorers.stage import RestoreStage
from ffhqref.seeding import case_seed

SEEN = []


class Plugin:
    """Adds 0.1 and remembers what it was shown; the classes below misbehave on cases by name."""

    info = RestorerInfo(name="plugin", max_references=2)
    batch_size = 4

    def __init__(self, device="nowhere"):
        self.device = device

    def restore(self, batch):
        SEEN.append(batch)
        return (batch.lq + 0.1).clamp(0, 1)


class Faulty(Plugin):
    def __init__(self, fault="raise"):
        self.fault = fault

    def restore(self, batch):
        SEEN.append(batch)
        out = (batch.lq + 0.1).clamp(0, 1)
        if "2" not in batch.case_ids:
            return out
        at = batch.case_ids.index("2")
        if self.fault == "raise":
            raise ValueError("cannot do this face\nand more words")
        if self.fault == "exit":
            raise SystemExit(3)
        if self.fault == "memory":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        if self.fault == "nan":
            out[at, 0, 3, 3] = float("nan")
        if self.fault == "nan in company" and len(batch) > 1:
            out[at] = float("nan")
        if self.fault == "shape":
            return out[:, :, :-1]
        if self.fault == "type":
            return out.double()
        if self.fault == "fewer":
            return out[:-1] if len(batch) > 1 else out[:0]
        if self.fault == "none":
            return None
        if self.fault == "range":
            out[at] = batch.lq[at] * 255
        if self.fault == "own input":
            out[at] = batch.lq[at]
        return out


class Truncating(Plugin):
    eight_bit_rule = "truncate"

    def restore(self, batch):
        return torch.full_like(batch.lq, 100.9 / 255)


class Overshooting(Plugin):
    def restore(self, batch):
        return batch.lq * 1.04 - 0.02


class TwoReferences(Plugin):
    info = RestorerInfo(name="two", min_references=2, max_references=None)


class Drawing(Plugin):
    """Draws from the global generators, as published scripts do."""

    info = RestorerInfo(name="drawing", uses_seed=True)
    batch_size = 1

    def restore(self, batch):
        return torch.rand_like(batch.lq) * 0.5 + float(np.random.rand()) * 0.5  # noqa: NPY002


class Weighted(Plugin):
    def __init__(self, sha256="aa"):
        self.weights_sha256 = {"weights.bin": sha256}


class Versioned(Plugin):
    version = "2"


class OnGpu(Plugin):
    def restore(self, batch):
        held = torch.ones(64 * 2**20, dtype=torch.uint8, device=self.device)
        return batch.lq.to(self.device) * held[0]


class ManyOnGpu(Plugin):
    def restore(self, batch):
        held = torch.ones((len(batch), 64 * 2**20), dtype=torch.uint8, device=self.device)
        return batch.lq.to(self.device) * held[0, 0] * 0.5


class Broken:
    def __init__(self):
        raise OSError("no weights here\nsecond line")


def target(kind):
    return {"_target_": f"{__name__}.{kind.__name__}"}


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Plugin.__module__])


@pytest.fixture
def rows(tmp_path):
    made = []
    for number in range(5):
        rng = np.random.default_rng(number)
        lq = tmp_path / "lq" / f"{number}.png"
        save_png(lq, rng.integers(10, 200, (512, 512, 3), dtype=np.uint8))
        references = [tmp_path / "ref" / f"{number}-{index}.png" for index in range(number)]
        for index, path in enumerate(references):
            save_png(path, np.full((512, 512, 3), 20 * number + index, np.uint8))
        made.append(
            {
                "benchmark": "severe", "case_id": str(number), "lq_path": f"lq/{number}.png",
                "lq_sha256": sha256_file(lq), "reference_paths": [str(path) for path in references],
                "reference_sha256": [sha256_file(path) for path in references], "seed": 7, "age": None,
                "out_path": f"out/{number}.png",
            }
        )  # fmt: skip
    return made


def run(tmp_path, rows, kind=Plugin, options=None, workers=1, **more):
    stage = RestoreStage(tmp_path, "mine", {**target(kind), **(options or {})}, **more)
    first = []
    SEEN.clear()
    results = run_stage(
        stage, rows, engine=LocalEngine(workers), journal_dir=tmp_path / "journal",
        progress=lambda name, done, total: first.append(done),
    )  # fmt: skip
    return results, first[0]


def frame(results):
    return pd.DataFrame(results)[list(tables.SPECS["restorations"].columns)]


def test_a_good_restorer_fills_the_table(tmp_path, rows):
    results, _ = run(tmp_path, rows)
    tables.write_table(tmp_path, "restorations", frame(results))
    table = tables.read_table(tmp_path, "restorations")
    assert list(table["status"]) == ["ok"] * 5 and table["error"].isna().all()
    assert (table["method"] == "mine").all() and (table["device"] == "cpu").all() and (table["seconds"] > 0).all()
    assert table["peak_memory_bytes"].isna().all()
    for row, recorded in zip(rows, table.to_dict("records"), strict=True):
        path = tmp_path / recorded["output_path"]
        assert sha256_file(path) == recorded["output_sha256"]
        expected = np.round(np.clip(read_rgb(tmp_path / row["lq_path"]) + 25.5, 0, 255))
        assert np.abs(read_rgb(path) - expected).max() <= 1


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("raise", "ValueError: cannot do this face"),
        ("exit", "SystemExit: 3"),
        ("memory", "out of memory: OutOfMemoryError: CUDA out of memory. Tried to allocate 9 GiB"),
        ("nan", "1 of 786432 values are NaN or infinite"),
        ("shape", "wrong shape [1, 3, 511, 512], expected [1, 3, 512, 512]"),
        ("type", "wrong number type torch.float64, expected torch.float32"),
        ("fewer", "wrong shape [0, 3, 512, 512], expected [1, 3, 512, 512]"),
        ("none", "returned NoneType"),
        ("range", "expected 0..1"),
    ],
)
def test_one_failing_case_is_one_row_and_takes_no_neighbour_along(tmp_path, rows, fault, words):
    results, _ = run(tmp_path, rows, Faulty, {"fault": fault})
    assert [result["status"] for result in results] == ["ok", "ok", "failed", "ok", "ok"]
    bad = results[2]
    assert words in bad["error"] and "\n" not in bad["error"]
    assert bad["output_path"] is None and not (tmp_path / "out" / "2.png").exists()
    good, _ = run(tmp_path / "clean", rows_at(rows, tmp_path), Plugin)
    for one, other in zip(results, good, strict=True):
        assert one["case_id"] == "2" or one["output_sha256"] == other["output_sha256"]
    tables.write_table(tmp_path, "restorations", frame(results))


def rows_at(rows, folder):
    return [{**row, "lq_path": str(folder / row["lq_path"])} for row in rows]


def test_a_case_that_fails_only_in_company_is_saved(tmp_path, rows):
    results, _ = run(tmp_path, rows, Faulty, {"fault": "nan in company"})
    assert [result["status"] for result in results] == ["ok"] * 5
    assert [len(batch) for batch in SEEN] == [4, 1, 1], "only the case itself runs again"


def test_device_reaches_restorers_that_take_one(tmp_path):
    assert RestoreStage(tmp_path, "mine", target(Plugin), device="cuda:1").restorer.device == "cuda:1"
    own = RestoreStage(tmp_path, "mine", {**target(Plugin), "device": "cpu"}, device="cuda:1")
    assert own.restorer.device == "cpu", "a device of its own wins"
    row = {"benchmark": "b", "case_id": "c", "lq_path": "x", "lq_sha256": None, "reference_paths": []}
    row |= {"reference_sha256": [], "seed": 1, "out_path": "y"}
    assert own.process([row])[0]["device"] == "cpu"
    assert RestoreStage(tmp_path, "bicubic", device="cuda:1").process([row])[0]["device"] == "cpu", "it knows no GPU"


def test_its_own_input_is_told_unless_that_is_what_it_does(tmp_path, rows):
    results, _ = run(tmp_path, rows, Faulty, {"fault": "own input"})
    assert [result["status"] for result in results] == ["ok", "ok", "passthrough", "ok", "ok"]
    assert results[2]["output_path"] == "out/2.png" and "equals the input" in results[2]["error"]
    stage = RestoreStage(tmp_path, "lq")
    assert {result["status"] for result in stage.process(rows)} == {"ok"}


def test_references_are_cut_in_table_order_and_counted(tmp_path, rows):
    run(tmp_path, rows)
    shown = {case: strip for batch in SEEN for case, strip in zip(batch.case_ids, batch.references, strict=True)}
    assert {case: len(strip) for case, strip in shown.items()} == {"0": 0, "1": 1, "2": 2, "3": 2, "4": 2}
    assert shown["0"].shape == (0, 3, 512, 512)
    for number in (1, 2, 4):
        levels = [20 * number, 20 * number + 1][: min(number, 2)]
        assert torch.equal(shown[str(number)][:, 0, 0, 0], torch.tensor(levels, dtype=torch.float32) / 255)

    results, _ = run(tmp_path, rows, TwoReferences)
    assert [result["status"] for result in results] == ["failed"] * 2 + ["ok"] * 3
    assert results[1]["error"] == "missing references: 1 of at least 2"
    assert max(len(strip) for batch in SEEN for strip in batch.references) == 4


def test_restorer_sees_input_seeds_and_ages_but_no_truth(tmp_path, rows):
    rows[3]["age"] = 41.0
    rows[4]["age"] = float("nan")
    run(tmp_path, rows, device="cpu")
    batch = SEEN[0]
    assert batch.case_ids == ["0", "1", "2", "3"] and len(SEEN) == 2
    assert torch.equal(batch.lq, to_tensor([read_rgb(tmp_path / row["lq_path"]) for row in rows[:4]]))
    assert batch.seeds == [case_seed(7, "severe", str(number)) for number in range(4)]
    assert batch.ages == [None, None, None, 41.0] and SEEN[1].ages is None


def test_eight_bit_rule_and_clamping(tmp_path, rows):
    run(tmp_path, rows[:1], Truncating)
    assert (read_rgb(tmp_path / "out/0.png") == 100).all()
    results, _ = run(tmp_path, rows[:1], Overshooting)
    assert results[0]["status"] == "ok"


def test_draws_follow_the_case_and_not_the_order_or_the_worker(tmp_path, rows):
    one, _ = run(tmp_path, rows, Drawing)
    two, _ = run(tmp_path / "two", rows_at(rows, tmp_path)[::-1], Drawing)
    assert [r["output_sha256"] for r in one] == [r["output_sha256"] for r in two[::-1]]
    assert len({r["output_sha256"] for r in one}) == 5
    other, known = run(tmp_path, [{**row, "seed": 8} for row in rows], Drawing)
    assert known == 0 and other[0]["output_sha256"] != one[0]["output_sha256"]


def test_two_workers_give_the_same_table(tmp_path, rows):
    def table(root, workers):
        stage = RestoreStage(root, "bicubic", batch_size=1)
        results = run_stage(stage, rows_at(rows, tmp_path), engine=LocalEngine(workers), journal_dir=root / "journal")
        return frame(results).drop(columns="seconds")

    assert table(tmp_path / "one", 1).equals(table(tmp_path / "two", 2))


def test_resumes_by_content_and_mends_touched_files(tmp_path, rows):
    first, _ = run(tmp_path, rows, Faulty)
    again, known = run(tmp_path, rows, Faulty)
    assert known == 5 and again == first, "failures are remembered too"
    _, known = run(tmp_path, rows, Faulty, retry_failed=True)
    assert known == 4
    (tmp_path / "out/0.png").unlink()
    (tmp_path / "out/1.png").write_bytes(b"something else")
    mended, known = run(tmp_path, rows, Faulty)
    assert known == 3
    assert frame(mended).drop(columns="seconds").equals(frame(first).drop(columns="seconds"))


def test_key_follows_everything_that_decides_the_result(tmp_path, rows):
    def key(kind=Plugin, options=None, method="mine", device="cpu", **changes):
        stage = RestoreStage(tmp_path, method, {**target(kind), **(options or {})}, device=device)
        return stage.key({**rows[4], **changes})

    hashes = rows[4]["reference_sha256"]
    different = [
        key(), key(lq_sha256="0" * 64), key(case_id="x"), key(benchmark="x"), key(out_path="x"), key(age=30.0),
        key(reference_sha256=hashes[1::-1] + hashes[2:]), key(reference_sha256=hashes[:1]), key(method="other"),
        key(Faulty), key(Faulty, {"fault": "nan"}), key(Weighted), key(Weighted, {"sha256": "bb"}), key(Versioned),
    ]  # fmt: skip
    assert len(set(different)) == len(different)
    assert key(reference_sha256=[*hashes[:2], "unused"]) == key(), "only references it is shown count"
    assert key(seed=8) == key(), "it uses no seed"
    assert key(Drawing, seed=8) != key(Drawing)
    assert key(device="cuda") == key(), "a run may go on elsewhere; the device is told in the row"


def test_an_edited_plug_in_restores_again_and_built_in_ones_go_by_version(tmp_path, rows, monkeypatch):
    module = tmp_path / "ffhqref_mine.py"  # a name that begins like ours is still another package
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def restore(added):
        module.write_text(
            "from ffhqref.restorers import RestorerInfo\n\n\nclass Mine:\n    info = RestorerInfo(name='mine')\n\n"
            f"    def restore(self, batch):\n        return (batch.lq + {added}).clamp(0, 1)\n"
        )
        sys.modules.pop("ffhqref_mine", None)  # another run is another process
        importlib.invalidate_caches()
        stage = RestoreStage(tmp_path, "mine", {"_target_": "ffhqref_mine.Mine"})
        (result,) = run_stage(stage, rows[:1], engine=LocalEngine(1), journal_dir=tmp_path / "journal")
        return result

    first = restore(0.1)
    assert restore(0.1) == first, "seconds and all: nothing was done"
    expected = np.round(np.clip(read_rgb(tmp_path / rows[0]["lq_path"]) + 51.0, 0, 255))
    assert restore(0.2)["output_sha256"] != first["output_sha256"]
    assert np.abs(read_rgb(tmp_path / "out/0.png") - expected).max() <= 1

    before = RestoreStage(tmp_path, "bicubic").key(rows[0])
    monkeypatch.setattr("ffhqref.restorers.identity.sha256_file", lambda path: "another")
    assert RestoreStage(tmp_path, "bicubic").key(rows[0]) == before


def test_changed_missing_and_damaged_inputs_are_rows(tmp_path, rows):
    rows[0]["lq_sha256"] = "0" * 64
    (tmp_path / rows[1]["lq_path"]).unlink()
    rows[2]["reference_sha256"] = ["0" * 64, rows[2]["reference_sha256"][1]]
    text = tmp_path / "lq" / "3.png"
    text.write_text("no picture")
    rows[3]["lq_sha256"] = sha256_file(text)
    results, _ = run(tmp_path, rows)
    assert [result["status"] for result in results] == ["failed"] * 4 + ["ok"]
    for result, words in zip(results, ("changed since", "1.png", "changed since", "not a picture"), strict=False):
        assert words in result["error"] and "\n" not in result["error"]


def test_output_may_not_leave_the_workspace(tmp_path, rows):
    results, _ = run(tmp_path, [{**rows[0], "out_path": "../escaped.png"}])
    assert results[0]["status"] == "failed" and "leaves its root" in results[0]["error"]
    assert not (tmp_path.parent / "escaped.png").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"_target_": "nowhere.to.be.Found"}, "no module 'nowhere'"),
        ({"_target_": "ffhqref.images.nothing"}, "has no 'nothing'"),
        ({"_target_": "pathlib.Path"}, "is no restorer"),
        (target(Broken), "restorer 'mine' does not start: OSError: no weights here"),
        ({**target(Plugin), "wrong": 1}, "^restorer 'mine': got .* argument 'wrong'; its options: device$"),
    ],
)
def test_what_cannot_start_is_one_line_before_any_work(tmp_path, options, words):
    with pytest.raises(ConfigError, match=words) as caught:
        RestoreStage(tmp_path, "mine", options)
    assert "\n" not in str(caught.value)


@pytest.fixture
def plugin_package(tmp_path):
    """A package of its own with an entry point, as pip would lay it down."""
    site = tmp_path / "site"
    (site / "their_package").mkdir(parents=True)
    (site / "their_package" / "__init__.py").write_text(
        textwrap.dedent(
            """
            from ffhqref.restorers import RestorerInfo

            class Darker:
                info = RestorerInfo(name="darker", summary="half as bright")

                def __init__(self, by=0.5):
                    self.by = by

                def restore(self, batch):
                    return batch.lq * self.by
            """
        )
    )
    facts = site / "their_package-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(
        "[ffhqref.restorers]\ndarker = their_package:Darker\nabsent = their_package:Nothing\n"
    )
    return site


def test_a_restorer_of_another_package_appears_by_its_entry_point(tmp_path, rows, plugin_package):
    code = textwrap.dedent(
        f"""
        import sys, numpy as np
        sys.path.insert(0, {str(plugin_package)!r})
        if __name__ == "__main__":
            from ffhqref.errors import ConfigError
            from ffhqref.images import read_rgb
            from ffhqref.restorers import RESTORERS, make_restorer
            from ffhqref.restorers.check import check_restorer
            from ffhqref.restorers.stage import RestoreStage
            assert "their_package" not in sys.modules
            assert RESTORERS.plugin_names() == ["absent", "darker"], RESTORERS.plugin_names()
            assert check_restorer(make_restorer("darker"), size=32) == []
            stage = RestoreStage({str(tmp_path)!r}, "darker", {{"by": 0.25}})
            result = stage.process([{rows[0]!r}])[0]
            assert result["status"] == "ok", result
            made, low = (read_rgb({str(tmp_path)!r} + "/" + name) for name in ("out/0.png", "lq/0.png"))
            assert np.abs(made - low * 0.25).max() <= 0.51
            try:
                make_restorer("absent")
            except ConfigError as error:
                assert "their_package:Nothing" in str(error) and "does not import" in str(error), error
            else:
                raise AssertionError("a plug-in without its class")
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "darker" not in RESTORERS


def test_peak_memory_is_told_on_a_gpu(tmp_path, rows, cuda):
    results, _ = run(tmp_path, rows[:1], Plugin, device=cuda)
    assert results[0]["device"] == "cuda" and results[0]["peak_memory_bytes"] == 0, "this one works on the CPU"
    results, _ = run(tmp_path, rows[1:2], OnGpu, device=cuda)
    assert 64 * 2**20 <= results[0]["peak_memory_bytes"] < 128 * 2**20


def test_cases_too_many_for_the_memory_are_done_one_by_one(tmp_path, rows, second_device):
    second_device.capacity = second_device.used + 96 * 2**20  # one case of `ManyOnGpu` fits, two do not
    results, _ = run(tmp_path, rows[:2], ManyOnGpu, device="cuda", batch_size=2)
    assert [result["status"] for result in results] == ["ok", "ok"]
    assert second_device.refused == 1
    second_device.capacity = second_device.used + 32 * 2**20
    results, _ = run(tmp_path / "less", rows[:2], ManyOnGpu, device="cuda", batch_size=2, retry_failed=True)
    assert all(result["status"] == "failed" for result in results)


def test_only_a_write_that_is_refused_ends_the_run(tmp_path, rows, monkeypatch):
    def refuse(path, *arguments):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("ffhqref.restorers.stage.sha256_file", refuse)
        (result,) = RestoreStage(tmp_path, "mine", target(Plugin)).process(rows[:1])
    assert result["status"] == "failed" and "Permission denied" in result["error"]
    monkeypatch.setattr("ffhqref.restorers.stage.save_png", refuse)
    with pytest.raises(PermissionError):
        RestoreStage(tmp_path, "mine", target(Plugin)).process(rows[:1])
