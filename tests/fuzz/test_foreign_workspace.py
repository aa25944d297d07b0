"""A workspace from a stranger: what was edited is refused, what is newer is read, nothing private shows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ffhqref.cli.main import pipeline_module
from ffhqref.core.errors import FfhqrefError, ImageError, TableError
from ffhqref.core.images import save_png
from ffhqref.engine import Journal
from ffhqref.leaderboard.html.pictures import CasePictures, build_album
from ffhqref.leaderboard.merge import merge_reports
from ffhqref.leaderboard.reading import read_report, scored_parts
from ffhqref.store.sealed import sealed
from ffhqref.store.tables import table_path
from ffhqref.store.workspace import Workspace

from ..net.conftest import bare, finished  # noqa: F401 - fixtures

if TYPE_CHECKING:
    from ..net.conftest import Finished


@pytest.fixture
def copy(finished: Finished, tmp_path: Path) -> Path:  # noqa: F811
    for folder in ("tables", "lq", "outputs"):
        shutil.copytree(finished.root / folder, tmp_path / "w" / folder)
    return tmp_path / "w"


def reseal(root: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the metadata of a table as somebody would who can also compute its hash: another release, or a liar."""
    path = table_path(root, name)
    table = pq.read_table(path)
    facts = change(json.loads(table.schema.metadata[b"ffhqref"]))
    path.write_bytes(sealed(table.replace_schema_metadata({b"ffhqref": json.dumps(facts).encode()})))


def test_scores_edited_under_the_old_metadata_are_refused_by_report_and_validate(copy):
    path = table_path(copy, "scores")
    table = pq.read_table(path)
    rows = zip(table["metric"].to_pylist(), table["value"].to_pylist(), strict=True)
    edited = [99.0 if metric == "psnr" else value for metric, value in rows]
    index = table.column_names.index("value")
    pq.write_table(table.set_column(index, table.schema.field("value"), pa.array(edited)), path, compression="zstd")
    with pytest.raises(TableError, match=r"scores\.parquet"):
        scored_parts([Workspace(copy, read_only=True)])
    assert "scores.parquet" in Workspace(copy, read_only=True).damaged_tables()["scores"]


def test_a_workspace_of_a_later_release_can_be_merged(copy, finished):  # noqa: F811
    def later(facts: dict[str, Any]) -> dict[str, Any]:
        infos = {name: {**info, "carbon_grams": 3} for name, info in facts["infos"].items()}
        return {**facts, "infos": infos, "provenance_of_later": {"x": [1]}, "platform": "later"}

    reseal(copy, "restorations", later)
    reseal(copy, "cases", lambda facts: {**facts, "later": 1})
    mine, theirs = (Workspace(root, read_only=True) for root in (finished.root, copy))
    merged = merge_reports([read_report(mine), read_report(theirs)])
    assert len(merged.scores) == len(read_report(mine).scores)
    assert not merged.leaderboard.empty


@pytest.mark.parametrize("name", ["images", "cases", "restorations", "scores", "degradations"])
@pytest.mark.parametrize(
    "change",
    [
        lambda facts: {**facts, "config": []},
        lambda facts: {key: facts[key] for key in ("table", "version", "content", "inputs")},
        lambda facts: {**facts, "infos": ["a"], "directions": 5, "dataset": None, "signatures": "x", "config": "y"},
        lambda facts: {**facts, "infos": {"a": None}, "dataset": {"name": {}}, "directions": {"psnr": {}}},
    ],
    ids=["config-list", "bare", "scalars", "nested"],
)
def test_metadata_of_another_form_is_read_or_told_in_one_line(copy, name, change):
    reseal(copy, name, change)
    workspace = Workspace(copy, read_only=True)
    try:
        scored_parts([workspace])
        merge_reports([read_report(workspace)])
    except FfhqrefError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome will do


def test_a_foreign_root_shows_no_private_image(copy, tmp_path):
    private = tmp_path / "private"
    workspace = Workspace(copy, read_only=True)
    cases = workspace.read("cases")
    for path in cases["gt_path"].dropna():
        save_png(private / path, np.full((512, 512, 3), 77, np.uint8))
    reseal(copy, "images", lambda facts: {**facts, "dataset_root": str(private)})
    report = read_report(Workspace(copy, read_only=True))
    truth = report.cases["gt_path"].dropna().tolist()
    assert all(path.startswith(str(private)) for path in truth)
    shown = [CasePictures("b", str(number), path, None, [], {}) for number, path in enumerate(truth)]
    album = build_album(shown, size=64, reference_size=64, max_cases=9, max_characters=10**6, sha256=report.sha256)
    assert not album.data
    assert set(album.unreadable) == set(truth)


def test_an_output_that_leads_out_through_a_link_is_refused(copy, tmp_path):
    save_png(tmp_path / "diary.png", np.zeros((512, 512, 3), np.uint8))
    output = Workspace(copy, read_only=True).read("restorations")["output_path"].dropna().iloc[0]
    (copy / output).unlink()
    (copy / output).symlink_to(tmp_path / "diary.png")
    with pytest.raises(TableError, match="through a link"):
        read_report(Workspace(copy, read_only=True))


def test_an_output_that_was_swapped_is_not_shown(copy):
    workspace = Workspace(copy, read_only=True)
    output = workspace.read("restorations")["output_path"].dropna().iloc[0]
    save_png(copy / output, np.zeros((512, 512, 3), np.uint8))
    report = read_report(workspace)
    path = str(copy / output)
    album = build_album(
        [CasePictures("b", "0", path, None, [], {})],
        size=64, reference_size=64, max_cases=9, max_characters=10**6, sha256=report.sha256,
    )  # fmt: skip
    assert album.unreadable == [path]


def test_validate_reads_every_table_and_lists_all_that_are_damaged(copy, capsys):
    names = ["identities", "images", "licences", "scores"]
    for name in names:
        table_path(copy, name).write_bytes(b"PAR1")
    with pytest.raises(TableError, match="4 tables cannot be used"):
        pipeline_module("validate").execute({"root": str(copy)})
    told = capsys.readouterr().err
    assert [told.count(f"{name}.parquet") for name in names] == [1] * 4
    assert len(told.splitlines()) == 4


@pytest.mark.parametrize("layout", ["parquet", "imagefolder"])
def test_an_export_of_a_strangers_workspace_brings_no_private_image(copy, tmp_path, layout):
    from ffhqref.cases.export import export_cases

    private = tmp_path / "private"
    workspace = Workspace(copy, read_only=True)
    for path in workspace.read("cases")["gt_path"].dropna():
        save_png(private / path, np.full((512, 512, 3), 77, np.uint8))
    reseal(copy, "images", lambda facts: {**facts, "dataset_root": str(private)})
    workspace = Workspace(copy, read_only=True)
    with pytest.raises(ImageError, match="changed since its hash was recorded"):
        export_cases(workspace, workspace.read("cases"), tmp_path / "out", layout)
    assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    "recorded", ["workspace:..", "workspace:../private", "workspace:/etc", "workspace:tables/../.."]
)
def test_a_data_set_of_the_workspace_lies_in_the_workspace(copy, recorded):
    reseal(copy, "images", lambda facts: {**facts, "dataset_root": recorded})
    with pytest.raises(TableError, match="leaves its root"):
        Workspace(copy, read_only=True).image("x.png")


@pytest.mark.parametrize("name", [".probe", ".lock", "journal/images.jsonl"])
def test_nothing_is_written_through_a_link_that_a_workspace_brings(copy, tmp_path, name):
    victim = tmp_path / "victim"
    victim.write_bytes(b"private")
    place = copy / ("tables" if name == ".probe" else "") / name
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(victim)
    try:
        workspace = Workspace(copy)
        workspace.lock()
        Journal(workspace.journals / "images.jsonl", dict).close()
        workspace.close()
    except FfhqrefError as error:
        assert "link" in str(error)  # noqa: PT017 - either outcome will do
    assert victim.read_bytes() == b"private"


def test_a_folder_that_the_user_linked_to_another_disk_is_used_when_he_says_so(copy, tmp_path, monkeypatch):
    disk = tmp_path / "disk"
    (copy / "outputs").rename(disk)
    (copy / "outputs").symlink_to(disk)
    with pytest.raises(TableError, match="set FFHQREF_LINKED=outputs"):
        Workspace(copy)
    monkeypatch.setenv("FFHQREF_LINKED", "outputs")
    workspace = Workspace(copy)
    output = workspace.read("restorations")["output_path"].dropna().iloc[0]
    assert workspace.file(output).read_bytes()
    (tmp_path / "private").mkdir()
    for place in (disk / "inner", copy / "lq" / "inner"):  # links inside it, and of other folders
        place.symlink_to(tmp_path / "private")
    for path in ("outputs/inner/x.png", "lq/inner/x.png"):
        with pytest.raises(TableError, match="through a link"):
            workspace.file(path)
    monkeypatch.setenv("FFHQREF_LINKED", "lq")
    with pytest.raises(TableError, match="through a link"):
        workspace.file(output)
