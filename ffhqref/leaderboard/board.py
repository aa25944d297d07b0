"""One row of the leaderboard: the only list of its columns beside the table's schema."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping

    import pandas as pd


@dataclass(frozen=True)
class BoardRow:
    """One mean with what is known of it; the fields are the columns of the table ``leaderboard``."""

    benchmark: str
    method: str
    metric: str
    higher_is_better: bool
    mean: float
    ci_low: float
    ci_high: float
    n: int
    n_failed: int
    rank: int | None
    rank_low: int | None
    rank_high: int | None
    published: float | None = None
    published_source: str | None = None
    leak: str | None = None
    seconds_per_image: float | None = None
    peak_memory_mb: float | None = None
    parameters: float | None = None
    multiply_adds: float | None = None
    evaluations: int | None = None
    openness: str | None = None

    @property
    def best(self) -> bool:
        """Has the best mean."""
        return self.rank == 1

    @property
    def tied(self) -> bool:
        """Is not the best mean, yet the data leave open that it is."""
        return self.rank_low == 1 and not self.best

    @property
    def known(self) -> bool:
        """Has a mean."""
        return not math.isnan(self.mean)

    @classmethod
    def of(cls, record: Mapping[Hashable, object]) -> BoardRow:
        """Return the row of a record of the table, None where a value is missing and NaN where a float may be."""
        import pandas as pd

        found: dict[str, object] = {}
        for column in fields(cls):
            value = record[column.name]
            missing = value is None or bool(pd.isna(value))  # type: ignore[call-overload]
            if column.type == "float":
                found[column.name] = math.nan if missing else float(value)  # type: ignore[arg-type]
            elif missing:
                found[column.name] = None
            elif str(column.type).startswith("int"):
                found[column.name] = int(value)  # type: ignore[call-overload]
            else:
                found[column.name] = value
        return cls(**found)  # type: ignore[arg-type]


COLUMNS = tuple(column.name for column in fields(BoardRow))
"""Columns of the leaderboard in their order."""


def board_frame(rows: Iterable[BoardRow]) -> pd.DataFrame:
    """Return rows as the table ``leaderboard``, sorted by benchmark, metric, rank and method."""
    import pandas as pd

    kinds: dict[str, Any] = {
        "int | None": "Int32",
        "float | None": "float64",
        "float": "float64",
        "int": "int64",
        "bool": "bool",
    }
    frame = pd.DataFrame([vars(row) for row in rows], columns=list(COLUMNS))
    for column in fields(BoardRow):
        frame[column.name] = frame[column.name].astype(kinds.get(str(column.type), object))
    return frame.sort_values(["benchmark", "metric", "rank", "method"], ignore_index=True)
