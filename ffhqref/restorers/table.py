"""Table ``restorations``: its rows from the cases, its frame from the results, and what to say about it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import PurePosixPath
from statistics import median
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError
from ffhqref.datasets.match import without_ending
from ffhqref.metrics.base import GROUND_TRUTH
from ffhqref.restorers.runner import RestoreResult, RestoreRow, RestoreStage
from ffhqref.store.schemas import SPECS
from ffhqref.store.tables import read_metadata

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from ffhqref.store.workspace import Workspace


def restore_stages(
    root: Path, chosen: Mapping[str, Mapping[str, Any]], device: str, *, retry_failed: bool = False
) -> list[RestoreStage]:
    """Return one stage for each restorer.

    Args:
        root: of the workspace.
        chosen: options by the name that the restorer has in this run; ``name`` among them is that of the registry.
        device: of networks.
        retry_failed: do failed cases again.

    Raises:
        FfhqrefError: none chosen, a wrong name or option, or no weight file; one line.
    """
    if not chosen:
        raise ConfigError("no restorer chosen: restorer=[lq,bicubic]")
    if GROUND_TRUTH in chosen:
        raise ConfigError(f"restorer '{GROUND_TRUTH}': the name stands for the ground truth itself; choose another")
    return [
        RestoreStage(
            root,
            method,
            {key: value for key, value in options.items() if key != "name"},
            restorer=None if options.get("name") is None else str(options["name"]),
            device=device,
            retry_failed=retry_failed,
        )
        for method, options in chosen.items()
    ]


def restore_rows(workspace: Workspace, cases: pd.DataFrame, method: str, seed: int) -> list[RestoreRow]:
    """Return the work of one restorer.

    Args:
        workspace: of the cases.
        cases: rows of table ``cases``.
        method: name of the restorer in this run.
        seed: of the run.
    """
    sha256, names = workspace.picture_hashes(), _lq_names(workspace)
    return [
        RestoreRow(
            benchmark=case["benchmark"],
            case_id=case["case_id"],
            lq_path=case["lq_path"],
            lq_sha256=sha256(case["lq_path"]),
            reference_paths=tuple(str(workspace.image(path)) for path in case["reference_paths"]),
            reference_sha256=tuple(sha256(path) for path in case["reference_paths"]),
            seed=seed,
            age=case["age"],
            out_path=f"outputs/{method}/{case['benchmark']}/{case['case_id']}.png",
            lq_name=names.get((case["benchmark"], case["case_id"]), ""),
        )
        for case in cases.to_dict("records")
    ]


def _lq_names(workspace: Workspace) -> dict[tuple[str, str], str]:
    """Return (benchmark, case id) to the name that an imported LQ file has outside, without ending."""
    if not workspace.has("imports"):  # a workspace of an earlier release has none
        return {}
    brought = workspace.read("imports")
    own = brought[brought["role"] == "lq"][["benchmark", "case_id", "file"]]
    rows = zip(*(own[column].astype(str) for column in own), strict=True)
    return {
        (benchmark, case_id): without_ending(file) if "/" in case_id else PurePosixPath(file).stem
        for benchmark, case_id, file in rows
    }


def restorations(results: Sequence[RestoreResult]) -> pd.DataFrame:
    """Return the results as table ``restorations``."""
    import pandas as pd

    frame = pd.DataFrame([asdict(result) for result in results])[list(SPECS["restorations"].columns)]
    return frame.astype({"seconds": "float64", "peak_memory_bytes": "Int64"})


def beside(
    workspace: Workspace, made: pd.DataFrame, facts: Mapping[str, Mapping[str, Any]]
) -> tuple[pd.DataFrame, dict[str, dict[str, Any]]]:
    """Return restorations and facts of some methods with those of all others that the workspace has.

    Args:
        workspace: with cases.
        made: table ``restorations`` of the methods.
        facts: metadata of it, each by method.

    Raises:
        TableError: the workspace's restorations are of other cases than there are now.
    """
    import pandas as pd

    kept = {key: dict(mine) for key, mine in facts.items()}
    if not workspace.has("restorations"):
        return made, kept
    workspace.check_current("restorations")
    before, recorded = workspace.read("restorations"), read_metadata(workspace.root, "restorations")
    others = before[~before["method"].isin(set(made["method"]))]
    return pd.concat([others, made]), {key: {**recorded.get(key, {}), **mine} for key, mine in kept.items()}


def check_new(workspace: Workspace, method: str, kind: str) -> None:
    """Refuse the name of a method that the workspace has and that is of another kind.

    Args:
        workspace: to add the method to.
        method: its name.
        kind: name of its restorer.

    Raises:
        ConfigError: a method of that name would be lost.
    """
    if not workspace.has("restorations"):
        return
    before = read_metadata(workspace.root, "restorations")["config"]
    if method in before and (before[method] or {}).get("name", method) != kind:
        raise ConfigError(f"name={method}: the workspace {workspace.root} has a method of that name; choose another")


def timing(results: Sequence[RestoreResult]) -> Iterator[str]:
    """Yield the seconds of an image of each restorer, the first call of each worker apart."""
    for method in dict.fromkeys(result.method for result in results):
        own = [result for result in results if result.method == method and result.status != "failed"]
        first = [result.first_seconds for result in own if result.first_seconds is not None]
        rest = [result.seconds for result in own if result.seconds is not None]
        if first:
            after = f"{median(rest):.3g} s (median)" if rest else "nothing after it was timed"
            yield f"{method}: {median(first):.3g} s an image with loading, in the first call of a worker; then {after}"


def problems(table: pd.DataFrame) -> Iterator[str]:
    """Yield one line for each method and kind of failure."""
    for (method, status), group in table[table["status"] != "ok"].groupby(["method", "status"]):
        first = group.iloc[0]
        where = f"first {first['benchmark']}/{first['case_id']}: {first['error']}"
        yield f"{method}: {len(group)} of {(table['method'] == method).sum()} cases {status}, {where}"


def not_named(workspace: Workspace, benchmarks: Iterable[str], methods: Collection[str]) -> list[str]:
    """Return a line each about the benchmarks and the methods of a workspace that a command does not take up.

    Args:
        workspace: with cases and outputs.
        benchmarks: of the command; empty: all.
        methods: in the table.
    """
    chosen, lead = set(benchmarks), "not named, so not in the tables:"
    lost = sorted({*workspace.read("cases")["benchmark"]} - chosen) if chosen else []
    others = [name for name in restored_before(workspace) if name not in methods]
    lines = [f"{lead} benchmark {', '.join(lost)}; naming them takes their outputs up"] if lost else []
    if others:
        lines.append(f"{lead} {', '.join(others)}; their outputs stay, and naming them takes them up")
    return lines


def restored_before(workspace: Workspace) -> list[str]:
    """Return the restorers whose outputs are in a workspace."""
    folder, journals = workspace.root / "outputs", workspace.journals
    return sorted(path.name for path in folder.glob("*/") if (journals / f"restore-{path.name}.jsonl").is_file())
