"""Outputs that exist already as a method: the same files come out, and what is wrong with one is its row."""

import numpy as np
from PIL import Image

from ffhqref.core.hashing import sha256_file
from ffhqref.core.images import read_rgb, save_png
from ffhqref.engine import LocalEngine, run_stage
from ffhqref.restorers.runner import RestoreStage

from .conftest import typed


def restored(tmp_path, rows, said=None, **options):
    stage = RestoreStage(tmp_path, "mine", {"path": str(tmp_path / "given"), **options}, restorer="outputs")
    matched = stage.matched(typed(rows), (said if said is not None else []).append)
    computed = []
    results = run_stage(
        stage, matched, engine=LocalEngine(0), journal_dir=tmp_path / "journal",
        progress=lambda _, done, total: computed.append(total - done),
    )  # fmt: skip
    return {result.case_id: result for result in results}, computed[0]


def give(tmp_path, number, size=512, seed=9):
    path = tmp_path / "given" / f"{number}.png"
    save_png(path, np.random.default_rng(seed + number).integers(0, 255, (size, size, 3), dtype=np.uint8))
    return path


def test_each_fault_is_told_in_its_row(tmp_path, rows):
    good = give(tmp_path, 0)
    give(tmp_path, 1, size=256)
    save_png(tmp_path / "given" / "2.png", read_rgb(tmp_path / rows[2]["lq_path"]))
    (tmp_path / "given" / "3.png").write_bytes(b"no image")
    said = []
    results, _ = restored(tmp_path, rows, said)
    assert results["0"].status == "ok"
    assert results["0"].output_sha256 == sha256_file(good), "the same pixels give the same file"
    assert (results["0"].seconds, results["0"].first_seconds) == (None, None), "reading a file is no restoring"
    assert "256x256 pixels, expected 512x512; resize=true" in results["1"].error
    assert (results["2"].status, results["2"].error) == ("passthrough", "the output equals the input")
    assert "not an image" in results["3"].error
    assert "no file for this case" in results["4"].error
    assert [results[name].status for name in "134"] == ["failed"] * 3
    assert any("1 cases have no file: severe/4" in line for line in said)


def test_resume_goes_by_the_content_of_each_file(tmp_path, rows):
    for number in range(5):
        give(tmp_path, number)
    _, before = restored(tmp_path, rows)
    _, again = restored(tmp_path, rows)
    assert (before, again) == (5, 0)
    give(tmp_path, 3, seed=77)
    (tmp_path / "given").rename(tmp_path / "moved")
    _, changed = restored(tmp_path, rows, path=str(tmp_path / "moved"))
    assert changed == 1, "a moved folder is the same outputs, a replaced file is not"
    (tmp_path / "moved" / "0.png").unlink()
    results, _ = restored(tmp_path, rows, path=str(tmp_path / "moved"), missing="ignore")
    assert sorted(results) == ["1", "2", "3", "4"]


def test_another_size_and_a_lossy_format_when_told(tmp_path, rows):
    path = give(tmp_path, 0, size=1024)
    give(tmp_path, 1)
    smooth = np.full((512, 512, 3), 90, np.uint8)
    Image.fromarray(smooth).save(tmp_path / "given" / "2.jpg")
    said = []
    results, _ = restored(tmp_path, rows[:3], said, resize=True)
    assert [results[name].status for name in "012"] == ["ok"] * 3
    expected = np.asarray(Image.fromarray(read_rgb(path)).resize((512, 512), Image.Resampling.BICUBIC))
    assert np.array_equal(read_rgb(tmp_path / str(results["0"].output_path)), expected)
    assert any("1 outputs are in a lossy format" in line for line in said)
