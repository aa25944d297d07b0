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

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "method", "summary", "references", "licence", "commercial_use", "trained_on", "leak", "weights", "here", "seconds",
    "memory_mb", "verified_against", "paper",
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
    the command that fetches what is missing, or why it cannot start on this machine. ``seconds`` (of one 512x512
    image, the first call not counted) and ``memory_mb`` (most that its process held beyond torch itself, or on the
    GPU) are null unless ``cost`` is asked for.

    Args:
        names: which; None: all.
        device: where costs are measured.
        cost: measure those that are ready, each in a process of its own.
        recipes: methods that run through their own programs (`command`), by name; never ready by themselves.
    """
    import pandas as pd

    from ffhqref.leaderboard.published import BenchmarkInfo, leak_mark

    tested = BenchmarkInfo("ffhq_ref", "FFHQ-Ref test", people_from="FFHQ")
    rows = []
    others = recipes or {}
    for name in [*RESTORERS.names(), *others] if names is None else names:
        info = others[name] if name in others else describe(name)
        here = "a checkout of its code (docs/restorers.md)" if name in others else _readiness(name, info)
        measured = _measured(name, device) if cost and here == "ready" else {}
        rows.append(
            {
                "method": name,
                "summary": info.summary,
                "references": _references(info),
                "licence": info.licence,
                "commercial_use": "yes" if info.commercial_use else "no",
                "trained_on": ", ".join(info.trained_on),
                "leak": "†" if leak_mark(info, tested) else "",
                "weights": ", ".join(info.weights),
                "here": measured.get("error", here),
                "seconds": measured.get("seconds"),
                "memory_mb": measured.get("memory_mb"),
                "verified_against": info.verified_against,
                "paper": info.paper or "",
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"seconds": "float64", "memory_mb": "float64"})


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


def cost_of(restorer: Restorer, side: int = 512, repeats: int = 2) -> dict[str, float]:
    """Return ``seconds`` of one image and the peak ``memory_mb``.

    The time is the median of the calls after the first, which loads and warms up; one is enough where it takes long.
    On a GPU the memory is what torch had allocated there; on the CPU it is how far this process's peak rose, weights
    and the first call's work included.
    """
    import resource
    import time
    from statistics import median

    import torch

    from ffhqref.restorers.base import RestorationBatch, complete

    info = restorer.info
    device = str(restorer.device)
    unit = 1.0 if sys.platform == "darwin" else 1024.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    generator = torch.Generator().manual_seed(0)
    shape = (3, info.input_size or side, info.input_size or side)
    count = max(info.min_references, 1 if info.max_references is None else min(1, info.max_references))
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
    return {"seconds": median(seconds[1:]), "memory_mb": memory}


def to_markdown(frame: pd.DataFrame) -> str:
    """Return the table as Markdown: what holds everywhere, and where costs were measured, what holds here too."""
    ours = ("here", "seconds", "memory_mb")
    measured = frame["seconds"].notna().any()
    kept = [name for name in frame.columns if measured or name not in ours]
    lines = ["| " + " | ".join(kept) + " |", "|" + "---|" * len(kept)]
    for row in frame[kept].itertuples(index=False):
        cells = ("" if value != value else f"{value:.3g}" if isinstance(value, float) else str(value) for value in row)
        lines.append("| " + " | ".join(markdown(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(json.dumps(cost_of(make_restorer(sys.argv[1], device=sys.argv[2]))))  # noqa: T201 - its parent reads this
