"""The main job's tables, its leaderboard and its second run are what they were."""

from __future__ import annotations

import hashlib
import io
import json
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from . import frames
from .conftest import JOB, SNAPSHOTS, UPDATE, Finished, check_text

if TYPE_CHECKING:
    from ..command import Command

TABLES = (
    "ages", "attributes", "cases", "config", "degradations", "embeddings", "identities", "images", "imports",
    "leaderboard", "licences", "pairs", "references", "restorations", "scores", "truth",
)  # fmt: skip

STABLE = (
    "ages", "attributes", "cases", "config", "degradations", "identities", "images", "imports", "licences", "truth",
)  # fmt: skip
"""Tables in which no network's float stands: each CPU makes the same bits."""


def as_json(value: object) -> str:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def test_the_job_makes_these_tables_and_no_other(finished: Finished) -> None:
    assert frames.names(finished.root) == sorted(TABLES)


@pytest.mark.parametrize("name", TABLES)
def test_table(finished: Finished, name: str) -> None:
    found = frames.read(finished.root, name)
    path = SNAPSHOTS / "tables" / f"{name}.csv"
    if UPDATE:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(frames.to_csv(found), encoding="utf-8")
    assert frames.differences(name, found, path) == []


def test_leaderboard_csv(finished: Finished) -> None:
    text = (finished.root / "report" / "leaderboard.csv").read_text(encoding="utf-8")
    found = pd.read_csv(io.StringIO(text)).drop(columns=[*frames.VOLATILE], errors="ignore")
    path = SNAPSHOTS / "leaderboard.csv"
    if UPDATE:
        path.write_text(frames.to_csv(found), encoding="utf-8")
    assert frames.differences("leaderboard", found, path) == []


def test_columns_and_types(finished: Finished) -> None:
    found = {name: frames.columns(finished.root, name) for name in TABLES}
    check_text("columns.json", json.dumps(found, indent=1) + "\n")  # unsorted: the order counts


def test_columns_of_tables_that_the_job_does_not_make() -> None:
    from ffhqref.store.schemas import SPECS

    found = {
        name: {
            "version": spec.version,
            "key": list(spec.key),
            "columns": {column: facts.words for column, facts in spec.columns.items()},
        }
        for name, spec in sorted(SPECS.items())
    }
    check_text("specs.json", json.dumps(found, indent=1) + "\n")


def test_metadata(finished: Finished) -> None:
    check_text("metadata.json", as_json({name: frames.stable_facts(finished.root, name) for name in TABLES}))


def test_content_hashes(finished: Finished) -> None:
    found = {name: frames.facts(finished.root, name)["content"] for name in TABLES}
    path = SNAPSHOTS / "content.json"
    machine = frames.machine(finished.root)
    if UPDATE:
        path.write_text(as_json({"machine": machine, "content": found}), encoding="utf-8")
    expected = json.loads(path.read_text(encoding="utf-8"))
    same_machine = machine == expected["machine"]
    for name in TABLES if same_machine else STABLE:
        assert found[name] == expected["content"][name], name


def test_a_second_run_has_nothing_to_do(
    finished: Finished, workspace_copy: Command, bare: tuple[Command, dict[str, str]]
) -> None:
    root = workspace_copy.folder / "w"

    def hashes() -> dict[str, str]:
        files = [*root.glob("tables/*.parquet"), root / "report" / "leaderboard.csv"]
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    before = hashes()
    again = workspace_copy(*JOB, env=bare[1])
    assert again.returncode == 0, again.stderr
    assert "nothing to do: all of it was done before" in again.stderr
    assert hashes() == before
