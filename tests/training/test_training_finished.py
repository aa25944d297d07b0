"""A training that is done is known by its files: untouched, copied, changed, of other settings."""

from __future__ import annotations

import shutil

import pytest

from ffhqref.training.finished import RECORD, finished, mark_finished, outcome


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "run"
    (made / "checkpoint-3" / "mix").mkdir(parents=True)
    (made / "checkpoint-3" / "mix" / "mix.safetensors").write_bytes(b"weights")
    (made / "checkpoint-3" / "mix" / "config.json").write_text("{}")
    (made / "refldm.ckpt").write_bytes(b"other weights")
    mark_finished(made, "key", [made / "checkpoint-3", made / "refldm.ckpt"])
    return made


def test_done_is_done_where_it_lies_and_in_a_copy(folder, tmp_path):
    assert finished(folder, "key") == [folder / "checkpoint-3", folder / "refldm.ckpt"]
    shutil.copytree(folder, tmp_path / "copy", copy_function=shutil.copy)  # other times, the same bytes
    assert finished(tmp_path / "copy", "key") == [tmp_path / "copy" / "checkpoint-3", tmp_path / "copy" / "refldm.ckpt"]
    assert outcome(tmp_path / "copy") == outcome(folder) != ""


@pytest.mark.parametrize("change", ["other key", "cut", "same size", "gone", "no record", "broken record", "list"])
def test_what_is_not_done_or_no_longer_whole_is_not(folder, change):
    weights = folder / "checkpoint-3" / "mix" / "mix.safetensors"
    if change == "cut":
        weights.write_bytes(b"weight")
    elif change == "same size":
        weights.write_bytes(b"Weights")
    elif change == "gone":
        weights.unlink()
    elif change == "no record":
        (folder / RECORD).unlink()
    elif change == "broken record":
        (folder / RECORD).write_text('{"key": "key", "written": []')
    elif change == "list":
        (folder / RECORD).write_text("[]")
    assert finished(folder, "other" if change == "other key" else "key") is None


def test_outcome_tells_weights_apart_and_nothing_else(folder):
    before = outcome(folder)
    written = [folder / "checkpoint-3", folder / "refldm.ckpt"]
    (folder / "checkpoint-3" / "mix" / "config.json").write_text('{"_version": 2}')
    mark_finished(folder, "another key", written)
    assert outcome(folder) == before
    (folder / "checkpoint-3" / "mix" / "mix.safetensors").write_bytes(b"Weights")
    mark_finished(folder, "key", written)
    assert outcome(folder) != before
    assert outcome(folder.parent) == ""
