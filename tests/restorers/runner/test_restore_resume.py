"""The restore stage again: seeds, workers, content keys, resuming."""

import importlib
import sys
from dataclasses import asdict

import numpy as np

from ffhqref.core.images import read_rgb
from ffhqref.engine import LocalEngine, run_stage
from ffhqref.restorers.runner import RestoreRow, RestoreStage

from .conftest import frame, rows_at, run, typed
from .plugins import Drawing, Faulty, Plugin, Versioned, Weighted, target


def test_draws_follow_the_case_and_not_the_order_or_the_worker(tmp_path, rows):
    one, _ = run(tmp_path, rows, Drawing)
    two, _ = run(tmp_path / "two", rows_at(rows, tmp_path)[::-1], Drawing)
    assert [r["output_sha256"] for r in one] == [r["output_sha256"] for r in two[::-1]]
    assert len({r["output_sha256"] for r in one}) == 5
    other, known = run(tmp_path, [{**row, "seed": 8} for row in rows], Drawing)
    assert known == 0
    assert other[0]["output_sha256"] != one[0]["output_sha256"]


def test_two_workers_give_the_same_table(tmp_path, rows):
    def table(root, workers):
        stage = RestoreStage(root, "bicubic", batch_size=1)
        results = run_stage(
            stage, typed(rows_at(rows, tmp_path)), engine=LocalEngine(workers), journal_dir=root / "journal"
        )
        return frame([asdict(result) for result in results]).drop(columns="seconds")

    assert table(tmp_path / "one", 1).equals(table(tmp_path / "two", 2))


def test_resumes_by_content_and_mends_touched_files(tmp_path, rows):
    first, _ = run(tmp_path, rows, Faulty)
    again, known = run(tmp_path, rows, Faulty)
    assert known == 5, "failures are remembered too"
    assert again == first
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
        return stage.key(RestoreRow(**{**rows[4], **changes}))

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
        (result,) = run_stage(stage, typed(rows[:1]), engine=LocalEngine(1), journal_dir=tmp_path / "journal")
        return result

    first = restore(0.1)
    assert restore(0.1) == first, "seconds and all: nothing was done"
    expected = np.round(np.clip(read_rgb(tmp_path / rows[0]["lq_path"]) + 51.0, 0, 255))
    assert restore(0.2).output_sha256 != first.output_sha256
    assert np.abs(read_rgb(tmp_path / "out/0.png") - expected).max() <= 1

    before = RestoreStage(tmp_path, "bicubic").key(RestoreRow(**rows[0]))
    monkeypatch.setattr("ffhqref.restorers.cache_key.sha256_file", lambda path: "another")
    assert RestoreStage(tmp_path, "bicubic").key(RestoreRow(**rows[0])) == before
