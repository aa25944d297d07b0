"""The zoo as a table: what each restorer is, what it needs, and what it costs on this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError, FfhqrefError, one_line
from ffhqref.core.escape import markdown
from ffhqref.restorers import RESTORERS, make_restorer
from ffhqref.restorers.base import Restorer, RestorerInfo
from ffhqref.zoo.costs import in_words

if TYPE_CHECKING:
    import pandas as pd

COST_COLUMNS = (
    "cost_references", "parameters", "multiply_adds", "evaluations", "cost_note", "seconds", "memory_mb", "measured_on",
)  # fmt: skip
COLUMNS = (
    "method", "summary", "references", "licence", "commercial_use", "openness", "trained_on", "leak", "weights", "here",
    *COST_COLUMNS, "verified_against", "paper",
)  # fmt: skip


def describe(name: str) -> RestorerInfo:
    """Return the description of a restorer without making it, so that no weight file needs to be there.

    Raises:
        ConfigError: unknown name, or a class of another package that does not carry its description as ``info``.
    """
    factory: Any = RESTORERS.get(name)
    found = factory.info if hasattr(factory, "info") else None
    if not isinstance(found, RestorerInfo):
        raise ConfigError(f"restorer '{name}' has no class attribute `info`, a ffhqref.restorers.RestorerInfo")
    return found


def zoo_frame(
    names: Iterable[str] | None = None,
    *,
    device: str = "cpu",
    cost: bool = False,
    recipes: Mapping[str, RestorerInfo] | None = None,
) -> pd.DataFrame:
    """Return the columns `COLUMNS`, a row for each restorer.

    ``leak`` tells whether the published weights have seen the people of FFHQ-Ref's test split. ``here`` is ``ready``,
    the command that fetches what is missing, or why it cannot start on this machine. ``parameters`` to
    ``cost_note`` are those of `ffhqref.zoo.costs.Cost`, the same everywhere. ``seconds`` (the first call not counted)
    and ``memory_mb`` (most that its process held beyond torch itself, or on the GPU) of the machine ``measured_on``
    are null unless ``cost`` is asked for. All are of one 512x512 image with ``cost_references`` references.

    Args:
        names: which; None: all.
        device: where costs are measured.
        cost: measure those that are ready, each in a process of its own.
        recipes: methods that run through their own programs (`command`), by name; never ready by themselves.
    """
    import pandas as pd

    from ffhqref.leaderboard.published import BenchmarkInfo, leak_mark
    from ffhqref.zoo.costs import Cost, case_references, known_costs
    from ffhqref.zoo.openness import openness

    tested = BenchmarkInfo("ffhq_ref", "FFHQ-Ref test", people_from="FFHQ")
    rows = []
    others = recipes or {}
    for name in [*RESTORERS.names(), *others] if names is None else names:
        info = others[name] if name in others else describe(name)
        here = "a checkout of its code (docs/restorers.md)" if name in others else _readiness(name, info)
        measured = _measured(name, device) if cost and here == "ready" else {}
        counted = known_costs().get(name, Cost(name, note="counted for built-in methods only"))
        rows.append(
            {
                "method": name,
                "summary": info.summary,
                "references": _references(info),
                "licence": info.licence,
                "commercial_use": "yes" if info.commercial_use else "no",
                "openness": openness(info),
                "trained_on": ", ".join(info.trained_on),
                "leak": "†" if leak_mark(info, tested) else "",
                "weights": ", ".join(info.weights),
                "here": measured.get("error", here),
                "parameters": counted.parameters,
                "multiply_adds": counted.multiply_adds,
                "evaluations": counted.evaluations,
                "cost_note": counted.note,
                "cost_references": case_references(info) if counted.parameters or measured else None,
                "seconds": measured.get("seconds"),
                "memory_mb": measured.get("memory_mb"),
                "measured_on": measured.get("measured_on", ""),
                "verified_against": info.verified_against,
                "paper": info.paper or "",
            }
        )
    numbers = dict.fromkeys(("parameters", "multiply_adds", "evaluations", "cost_references"), "Int64")
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({**numbers, "seconds": "float64", "memory_mb": "float64"})


def _references(info: RestorerInfo) -> str:
    low, high = info.min_references, info.max_references
    if high == 0:
        return "none"
    return f"{low} or more" if high is None else str(low) if low == high else f"{low} to {high}"


def _readiness(name: str, info: RestorerInfo) -> str:
    from ffhqref.weights.files import find

    absent = [weight for weight in info.weights if find(weight) is None]
    if absent:
        return f"ffhqref weights fetch {' '.join(absent)}"
    try:
        make_restorer(name, device="cpu")
    except FfhqrefError as error:
        return one_line(error)
    return "ready"


def _measured(name: str, device: str) -> dict[str, Any]:
    """Measure in a fresh process, so that one method's memory is not another's."""
    command = [sys.executable, "-m", "ffhqref.cli.catalogue", name, device]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return {"error": f"failed: {lines[-1][:200] if lines else f'exit status {done.returncode}'}"}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def cost_of(restorer: Restorer, side: int = 512, repeats: int = 2) -> dict[str, float | str]:
    """Return ``seconds`` of one image, the peak ``memory_mb``, and the name of the processor, ``measured_on``.

    The time is the median of the calls after the first, which loads and warms up; one is enough where it takes long.
    On a GPU the memory is what torch had allocated there; on the CPU it is how far this process's peak rose, weights
    and the first call's work included.
    """
    import resource
    import time
    from statistics import median

    import torch

    from ffhqref.restorers.base import RestorationBatch, complete
    from ffhqref.zoo.costs import case_references

    info = restorer.info
    device = str(restorer.device)
    unit = 1.0 if sys.platform == "darwin" else 1024.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    generator = torch.Generator().manual_seed(0)
    shape = (3, info.input_size or side, info.input_size or side)
    count = case_references(info)
    batch = RestorationBatch(
        lq=torch.rand((1, *shape), generator=generator),
        references=[torch.rand((count, *shape), generator=generator)],
        seeds=[1],
        case_ids=["cost"],
    )
    seconds = []
    with torch.no_grad():
        for _ in range(1 + repeats):
            start = time.perf_counter()
            complete(restorer.restore(batch)).cpu()
            seconds.append(time.perf_counter() - start)
            if len(seconds) > 1 and sum(seconds) > 30:
                break
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cuda = device.startswith("cuda")
    memory = torch.cuda.max_memory_allocated(device) / 1e6 if cuda else (peak - before) * unit / 1e6
    return {"seconds": median(seconds[1:]), "memory_mb": memory, "measured_on": _processor(device)}


def _processor(device: str) -> str:
    """Return what a device is called, a CPU with the threads that torch uses."""
    import platform
    from pathlib import Path

    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    name = next(iter(models), platform.processor() or platform.machine())
    return f"{name}, {torch.get_num_threads()} threads"


def to_markdown(frame: pd.DataFrame) -> str:
    """Return what the methods are as a Markdown table; where costs were measured, with what is ready here."""
    without = {*COST_COLUMNS, *([] if _measured_any(frame) else ["here"])}
    return _table(frame, [name for name in frame.columns if name not in without])


def costs_to_markdown(frame: pd.DataFrame) -> str:
    """Return what the methods cost as a Markdown table: counts, and what was measured here where that was asked for."""
    measured = ("seconds", "memory_mb", "measured_on")
    names = [name for name in COST_COLUMNS if _measured_any(frame) or name not in measured]
    return _table(frame, ["method", *names])


def _measured_any(frame: pd.DataFrame) -> bool:
    return bool(frame["seconds"].notna().any())


def _table(frame: pd.DataFrame, names: list[str]) -> str:
    lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    lines += (
        "| " + " | ".join(markdown(in_words(cell)) for cell in row) + " |"
        for row in frame[names].itertuples(index=False)
    )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(json.dumps(cost_of(make_restorer(sys.argv[1], device=sys.argv[2]))))  # noqa: T201 - its parent reads this
