"""A stranger who computes the hash anew: odd values in tables that are whole are read, or told in one line."""

from __future__ import annotations

import json
import random
import shutil
import signal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ffhqref.core.errors import FfhqrefError
from ffhqref.leaderboard.merge import merge_reports
from ffhqref.leaderboard.reading import read_report, scored_parts
from ffhqref.store.schemas import SPECS
from ffhqref.store.sealed import sealed
from ffhqref.store.tables import table_path
from ffhqref.store.workspace import Workspace

from ..net.conftest import bare, finished  # noqa: F401 - fixtures
from .test_readers import impatient  # noqa: F401 - a fixture

if TYPE_CHECKING:
    from pathlib import Path

    from ..net.conftest import Finished

TABLES = (
    "images", "embeddings", "identities", "references", "degradations", "cases", "restorations", "scores", "attributes",
    "imports", "ages",
)  # fmt: skip
TEXTS = (
    "", "../../etc/passwd", "/etc/passwd", "=1+1", "<script>x</script>", "\x1b[31m", "a" * 5000, "\u202e", "nan", "lq",
    "test", "failed", "\0", "a\nb", "workspace:../x", "{x}", "%s", "${a}",
)  # fmt: skip
INTEGERS = (0, -1, 1, 2**31 - 1, -(2**31), 100)
FLOATS = (float("nan"), float("inf"), float("-inf"), 0.0, -1.0, 1e308, 99.0, 1e-320)
VALUES: tuple[Any, ...] = (None, True, [], {}, [[]], {"a": {}}, 10**30, *TEXTS, *INTEGERS, *FLOATS)


def cell(kind: pa.DataType, draws: random.Random) -> Any:
    if draws.random() < 0.15:
        return None
    if pa.types.is_list(kind):
        return [cell(kind.value_type, draws) for _ in range(draws.choice((0, 1, 3, 50)))]
    if pa.types.is_string(kind):
        return draws.choice(TEXTS)
    if pa.types.is_boolean(kind):
        return draws.random() < 0.5
    return draws.choice(FLOATS if pa.types.is_floating(kind) else INTEGERS)


def odd(value: Any, draws: random.Random) -> Any:
    """Return a JSON value with something odd somewhere in it."""
    if isinstance(value, dict) and value and draws.random() < 0.85:
        key, chance = draws.choice(list(value)), draws.random()
        others = {name: item for name, item in value.items() if name != key}
        if chance < 0.15:
            return others
        if chance < 0.25:
            return {**others, draws.choice(TEXTS): value[key]}
        return {**value, key: odd(value[key], draws)}
    if isinstance(value, list) and value and draws.random() < 0.8:
        place = draws.randrange(len(value))
        return [*value[:place], odd(value[place], draws), *value[place + 1 :]]
    return draws.choice(VALUES)


def lie(path: Path, draws: random.Random) -> None:
    table = pq.read_table(path)
    facts = json.loads(table.schema.metadata[b"ffhqref"])
    if draws.random() < 0.5 and len(table):
        column = draws.choice([name for name in table.column_names if name != "vector"])
        field, values = table.schema.field(column), table[column].to_pylist()
        for row in range(len(values)) if draws.random() < 0.3 else [draws.randrange(len(values))]:
            made = cell(field.type, draws)
            values[row] = values[row] if made is None and not field.nullable else made
        table = table.set_column(table.column_names.index(column), field, pa.array(values, field.type))
        table = table.sort_by([(key, "ascending") for key in SPECS[path.stem].key])
    else:
        facts = odd(facts, draws)
        if isinstance(facts, dict):
            facts["table"] = path.stem
    path.write_bytes(sealed(table.replace_schema_metadata({b"ffhqref": json.dumps(facts).encode()})))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("count", [6, pytest.param(400, marks=pytest.mark.slow)])
def test_a_lying_workspace_is_read_or_told_in_one_line(finished: Finished, tmp_path, record_property, impatient, count):  # noqa: F811
    shutil.copytree(finished.root / "tables", tmp_path / "w" / "tables")
    mine, draws, outcomes = read_report(Workspace(finished.root, read_only=True)), random.Random(count), {"told": 0}
    for _ in range(count):
        path = table_path(tmp_path / "w", draws.choice(TABLES))
        if not path.is_file():
            continue
        whole = path.read_bytes()
        lie(path, draws)
        signal.alarm(60)
        try:
            theirs = Workspace(tmp_path / "w", read_only=True)
            scored_parts([theirs])
            merge_reports([mine, read_report(theirs)])
        except FfhqrefError as error:
            outcomes["told"] += 1
            assert "\n" not in str(error)  # noqa: PT017 - either outcome will do
            assert len(str(error)) < 2000  # noqa: PT017
        signal.alarm(0)
        path.write_bytes(whole)
    record_property("lies", count)
    record_property("told", outcomes["told"])
