"""An export of a stranger writes nothing outside the workspace, and what is odd in it is one line."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ffhqref.cases.exported import import_export
from ffhqref.cases.lq import ImportRow, ImportStage
from ffhqref.core.errors import DatasetError, FfhqrefError
from ffhqref.core.images import save_png

ROW = {
    "lq_file_name": "lq/a.png", "gt_file_name": "gt/a.png", "references_file_names": ["references/a/000.png"],
    "case_id": "a", "target_id": "a", "identity_id": None, "age": None, "age_gap": None, "parameters": None,
}  # fmt: skip


def export(folder, *rows):
    for name in ("lq/a.png", "gt/a.png", "references/a/000.png"):
        save_png(folder / "test" / name, np.full((512, 512, 3), 90, np.uint8))
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "test" / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def bring(folder, root):
    return import_export("b", folder, root, lambda stage, rows: stage.process(rows), lambda line: None)


def test_a_case_comes_in(tmp_path):
    found = bring(export(tmp_path / "e", ROW), tmp_path / "w")
    assert list(found.cases["case_id"]) == ["a"]
    assert (tmp_path / "w" / "lq" / "b" / "a.png").is_file()


@pytest.mark.parametrize(
    "change",
    [
        {"case_id": "../../../victim"}, {"case_id": "/tmp/victim"}, {"case_id": 5}, {"case_id": ["a"]},
        {"target_id": {}}, {"age": "old"}, {"age": True}, {"identity_id": [1]}, {"lq_file_name": "../../x.png"},
        {"gt_file_name": "/etc/passwd"}, {"references_file_names": 7}, {"references_file_names": [None]},
        {"references_file_names": ["../../x.png"]}, {"parameters": "[]"}, {"parameters": "{"}, {"parameters": 1},
    ],
    ids=str,
)  # fmt: skip
def test_an_odd_case_is_one_line_and_writes_nothing_elsewhere(tmp_path, change):
    with pytest.raises(FfhqrefError) as caught:
        bring(export(tmp_path / "e", {**ROW, **change}), tmp_path / "deep" / "deep" / "w")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("victim*"))


@pytest.mark.parametrize("line", ["[]", "5", "{}", "[" * 50_000, "\x00", '{"case_id": "a"}'])
def test_odd_lines_are_told(tmp_path, line):
    with pytest.raises(DatasetError, match="cannot be read"):
        bring(export(tmp_path / "e", line), tmp_path / "w")


def test_the_stage_writes_in_the_workspace_alone(tmp_path):
    save_png(tmp_path / "x.png", np.full((512, 512, 3), 90, np.uint8))
    row = ImportRow(str(tmp_path / "x.png"), 1, 1, file="x.png", out_path="lq/b/../../../victim.png")
    (result,) = ImportStage(tmp_path / "w").process([row])
    assert "leaves its root" in result.error
    assert not (tmp_path / "victim.png").exists()
