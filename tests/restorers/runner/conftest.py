"""Five cases, and one run of the restore stage over them."""

from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from ffhqref.core.hashing import sha256_file
from ffhqref.core.images import save_png
from ffhqref.engine import LocalEngine, run_stage
from ffhqref.restorers.runner import RestoreRow, RestoreStage
from ffhqref.store import schemas

from .plugins import SEEN, Plugin, target


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


def typed(rows):
    """Return rows given as mappings as the stage takes them."""
    return [RestoreRow(**row) for row in rows]


def run(tmp_path, rows, kind=Plugin, options=None, workers=1, **more):
    stage = RestoreStage(tmp_path, "mine", {**target(kind), **(options or {})}, **more)
    first = []
    SEEN.clear()
    results = run_stage(
        stage, typed(rows), engine=LocalEngine(workers), journal_dir=tmp_path / "journal",
        progress=lambda name, done, total: first.append(done),
    )  # fmt: skip
    return [asdict(result) for result in results], first[0]


def frame(results):
    return pd.DataFrame(results)[list(schemas.SPECS["restorations"].columns)]


def rows_at(rows, folder):
    return [{**row, "lq_path": str(folder / row["lq_path"])} for row in rows]
