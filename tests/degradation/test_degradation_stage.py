"""The stage: results as rows, failures as rows, resuming, any number of workers."""

import errno
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ffhqref.core.errors import ConfigError
from ffhqref.core.hashing import sha256_file
from ffhqref.core.images import read_rgb, save_png
from ffhqref.degradation import Parameters, apply, draw
from ffhqref.degradation.stage import DegradeRow, DegradeStage
from ffhqref.engine import LocalEngine, run_stage
from ffhqref.store import schemas, tables


@pytest.fixture
def rows(tmp_path):
    made = []
    for number in range(5):
        rng = np.random.default_rng(number)
        path = tmp_path / "data" / f"{number}.png"
        save_png(path, rng.integers(0, 256, (40 + 200 * number, 50, 3), dtype=np.uint8))
        made.extend(
            DegradeRow(str(number), str(path), sha256_file(path), level, 9, f"lq/{level}/{number}.png")
            for level in ("moderate", "severe")
        )
    return made


def run(tmp_path, rows, workers=1, stage=None):
    engine = LocalEngine(workers)
    calls = []
    results = run_stage(
        stage or DegradeStage(tmp_path), rows, engine=engine, journal_dir=tmp_path / "journal",
        progress=lambda name, done, total: calls.append(done),
    )  # fmt: skip
    return results, calls[0]


def columns(results):
    return pd.DataFrame(results)[list(schemas.SPECS["degradations"].columns)]


def test_result_fills_the_table_and_the_file_is_what_the_row_rebuilds(tmp_path, rows):
    results, _ = run(tmp_path, rows)
    tables.write_table(tmp_path, "degradations", columns(results))
    table = tables.read_table(tmp_path, "degradations").set_index(["target_id", "level"])
    assert len(table) == len(rows)
    assert table["error"].isna().all()
    for row in rows:
        recorded = table.loc[(row.image_id, row.level)]
        path = tmp_path / recorded["lq_path"]
        assert recorded["lq_path"] == row.out_path
        assert sha256_file(path) == recorded["lq_sha256"]
        low = read_rgb(path)
        assert low.shape == (512, 512, 3)
        again = Parameters.from_row({**recorded.to_dict(), "level": row.level})
        assert again == draw(row.level, 9, row.image_id)
        assert np.array_equal(apply(read_rgb(row.path, 512), again), low)


def test_order_and_workers_change_nothing(tmp_path, rows):
    one, _ = run(tmp_path / "one", rows)
    two, _ = run(tmp_path / "two", rows[::-1], workers=2)
    assert columns(one).equals(columns(two[::-1]))
    for row in rows:
        assert (tmp_path / "one" / row.out_path).read_bytes() == (tmp_path / "two" / row.out_path).read_bytes()


def test_second_run_does_nothing_and_mends_what_was_touched(tmp_path, rows):
    first, _ = run(tmp_path, rows)
    again, known = run(tmp_path, rows)
    assert known == len(rows)
    assert again == first

    missing, damaged, swapped, moved = (tmp_path / row.out_path for row in rows[:4])
    kept = moved.read_bytes()
    missing.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-5])
    swapped.write_bytes(swapped.read_bytes()[::-1])  # same size, other time
    shutil.copy(moved, tmp_path / "copy").replace(moved)  # same content, other time
    mended, known = run(tmp_path, rows)
    assert known == len(rows) - 3
    assert moved.read_bytes() == kept
    assert columns(mended).equals(columns(first))


def test_unusable_pictures_are_rows_with_the_reason(tmp_path, rows):
    folder = tmp_path / "bad"
    folder.mkdir()
    (folder / "text.png").write_text("no image")
    whole = (tmp_path / "data" / "1.png").read_bytes()
    (folder / "torn.png").write_bytes(whole[: len(whole) // 2])
    (folder / "gone.png").touch()
    bad = [
        replace(row, path=str(folder / f"{name}.png"), sha256=sha256_file(folder / f"{name}.png"), image_id=name)
        for row, name in zip(rows, ("text", "torn", "gone"), strict=False)
    ]
    (folder / "gone.png").unlink()
    bad.append(replace(rows[3], sha256="0" * 64, image_id="changed"))
    results, _ = run(tmp_path, [*bad, rows[4]])
    for result, words in zip(results, ("not an image", "cannot be read", "gone.png", "changed since"), strict=False):
        assert words in result.error
        assert "\n" not in result.error
        assert result.lq_path is None
        assert result.lq_sha256 is None
    assert results[4].error is None
    tables.write_table(tmp_path, "degradations", columns(results))

    _, known = run(tmp_path, [*bad, rows[4]])
    assert known == 5, "a failure is remembered"
    _, known = run(tmp_path, [*bad, rows[4]], stage=DegradeStage(tmp_path, retry_failed=True))
    assert known == 1


def test_results_may_not_leave_the_workspace(tmp_path, rows):
    result = DegradeStage(tmp_path / "root").process([replace(rows[0], out_path="../out.png")])[0]
    assert "leaves its root" in result.error
    assert not (tmp_path / "out.png").exists()


def test_key_follows_everything_that_decides_the_result(tmp_path, rows):
    stage = DegradeStage(tmp_path)
    row = rows[0]
    changes = {"sha256": "f" * 64, "level": "severe", "seed": 10, "image_id": "x", "out_path": "lq/y.png"}
    keys = {stage.key(row), *(stage.key(replace(row, **{name: value})) for name, value in changes.items())}
    assert len(keys) == 6
    assert stage.key(replace(row, path="elsewhere.png")) == stage.key(row), "the same image at another place"
    with pytest.raises(ConfigError, match="Did you mean 'severe'"):
        stage.key(replace(row, level="sever"))


def test_only_a_write_that_is_refused_ends_the_run(tmp_path, rows, monkeypatch):
    def refuse(path, *arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr("ffhqref.degradation.stage.read_rgb", refuse)
        (result,) = DegradeStage(tmp_path).process(rows[:1])
    assert "Permission denied" in result.error
    assert result.lq_path is None
    monkeypatch.setattr("ffhqref.degradation.stage.save_png", refuse)
    with pytest.raises(PermissionError):
        DegradeStage(tmp_path).process(rows[:1])
