"""The restore stage: statuses, isolation, what a restorer is shown, what is written."""

import errno

import numpy as np
import pytest
import torch

from ffhqref.core.hashing import sha256_file
from ffhqref.core.images import read_rgb, to_tensor
from ffhqref.core.seeding import case_seed
from ffhqref.restorers.runner import RestoreStage
from ffhqref.store import tables

from .conftest import frame, rows_at, run, typed
from .plugins import (
    SEEN,
    Faulty,
    ManyOnGpu,
    OnGpu,
    Overshooting,
    Plugin,
    Truncating,
    TwoReferences,
    target,
)


def test_a_good_restorer_fills_the_table(tmp_path, rows):
    results, _ = run(tmp_path, rows)
    tables.write_table(tmp_path, "restorations", frame(results))
    table = tables.read_table(tmp_path, "restorations")
    assert list(table["status"]) == ["ok"] * 5
    assert table["error"].isna().all()
    assert (table["method"] == "mine").all()
    assert (table["device"] == "cpu").all()
    assert table["seconds"].isna().tolist() == [True] * 4 + [False], "the first call loads"
    assert (table["seconds"].dropna() > 0).all()
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
    assert words in bad["error"]
    assert "\n" not in bad["error"]
    assert bad["output_path"] is None
    assert not (tmp_path / "out" / "2.png").exists()
    good, _ = run(tmp_path / "clean", rows_at(rows, tmp_path), Plugin)
    for one, other in zip(results, good, strict=True):
        assert one["case_id"] == "2" or one["output_sha256"] == other["output_sha256"]
    tables.write_table(tmp_path, "restorations", frame(results))


def test_a_case_that_fails_only_in_company_is_saved(tmp_path, rows):
    results, _ = run(tmp_path, rows, Faulty, {"fault": "nan in company"})
    assert [result["status"] for result in results] == ["ok"] * 5
    assert [len(batch) for batch in SEEN] == [4, 1, 1], "only the case itself runs again"


def test_its_own_input_is_told_unless_that_is_what_it_does(tmp_path, rows):
    results, _ = run(tmp_path, rows, Faulty, {"fault": "own input"})
    assert [result["status"] for result in results] == ["ok", "ok", "passthrough", "ok", "ok"]
    assert results[2]["output_path"] == "out/2.png"
    assert "equals the input" in results[2]["error"]
    stage = RestoreStage(tmp_path, "lq")
    assert {result.status for result in stage.process(typed(rows))} == {"ok"}


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
    assert batch.case_ids == ["0", "1", "2", "3"]
    assert len(SEEN) == 2
    assert torch.equal(batch.lq, to_tensor([read_rgb(tmp_path / row["lq_path"]) for row in rows[:4]]))
    assert batch.seeds == [case_seed(7, "severe", str(number)) for number in range(4)]
    assert batch.ages == [None, None, None, 41.0]
    assert SEEN[1].ages is None


def test_quantization_and_clamping(tmp_path, rows):
    run(tmp_path, rows[:1], Truncating)
    assert (read_rgb(tmp_path / "out/0.png") == 100).all()
    results, _ = run(tmp_path, rows[:1], Overshooting)
    assert results[0]["status"] == "ok"


def test_changed_missing_and_damaged_inputs_are_rows(tmp_path, rows):
    rows[0]["lq_sha256"] = "0" * 64
    (tmp_path / rows[1]["lq_path"]).unlink()
    rows[2]["reference_sha256"] = ["0" * 64, rows[2]["reference_sha256"][1]]
    text = tmp_path / "lq" / "3.png"
    text.write_text("no image")
    rows[3]["lq_sha256"] = sha256_file(text)
    results, _ = run(tmp_path, rows)
    assert [result["status"] for result in results] == ["failed"] * 4 + ["ok"]
    for result, words in zip(results, ("changed since", "1.png", "changed since", "not an image"), strict=False):
        assert words in result["error"]
        assert "\n" not in result["error"]


def test_output_may_not_leave_the_workspace(tmp_path, rows):
    results, _ = run(tmp_path, [{**rows[0], "out_path": "../escaped.png"}])
    assert results[0]["status"] == "failed"
    assert "leaves its root" in results[0]["error"]
    assert not (tmp_path.parent / "escaped.png").exists()


def test_peak_memory_is_told_on_a_gpu(tmp_path, rows, cuda):
    results, _ = run(tmp_path, rows[:1], Plugin, device=cuda)
    assert results[0]["device"] == "cuda"
    assert results[0]["peak_memory_bytes"] == 0, "this one works on the CPU"
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
    def refuse(path, *arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("ffhqref.restorers.runner.read_rgb", refuse)
        (result,) = RestoreStage(tmp_path, "mine", target(Plugin)).process(typed(rows[:1]))
    assert result.status == "failed"
    assert "Permission denied" in result.error
    monkeypatch.setattr("ffhqref.restorers.runner.save_png", refuse)
    with pytest.raises(PermissionError):
        RestoreStage(tmp_path, "mine", target(Plugin)).process(typed(rows[:1]))
