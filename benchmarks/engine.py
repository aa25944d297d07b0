"""What a Ray cluster costs against processes of one machine: start, and time per case, for 1,000 and 20,000 cases.

Run: python benchmarks/engine.py [--cases 1000 20000] [--milliseconds 2] [--save benchmarks/results/engine.json]

Both engines get the same stage, which does a fixed amount of work (so many rounds of SHA-256) on each case, in batches
of one, the worst case: restoration hands out one case at a time, degradation and scoring eight. Both have the same
number of processes on this machine and write the same journal; the results are compared. Each is timed twice in turns
and the better time counts, after a warm-up of which the time is told as the start. A cluster over several machines adds
the network to each batch, a fraction of a millisecond within one room.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ffhqref.engine import Stage


class Work(Stage[Mapping[str, Any], dict[str, Any]]):
    """Hashes the number of a case so many times."""

    version, batch_size = "1", 1

    def __init__(self, name: str, rounds: int) -> None:
        self.name, self.rounds = name, rounds

    def key(self, row: Mapping[str, Any]) -> str:
        """Return the number."""
        return str(row["case"])

    def process(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the hash of each."""
        return [{"sha256": hashed(str(row["case"]), self.rounds)} for row in rows]


def hashed(text: str, rounds: int) -> str:
    """Return the hash after so many rounds."""
    data = text.encode()
    for _ in range(rounds):
        data = hashlib.sha256(data).digest()
    return data.hex()


def main() -> None:
    """Print and save the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, nargs="+", default=[1000, 20000])
    parser.add_argument("--milliseconds", type=float, default=2.0, help="of work a case")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()

    rounds = rounds_of(options.milliseconds)
    figures: dict[str, Any] = {"workers": options.workers, "milliseconds of work a case": options.milliseconds}
    with tempfile.TemporaryDirectory() as folder:
        figures |= compare(Path(folder), options.cases, options.repeats, options.workers, rounds)
    figures |= {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    figures["load average of the machine"] = os.getloadavg()[0]
    for name, value in figures.items():
        print(f"{name:48} {value:.4g}" if isinstance(value, float) else f"{name:48} {value}")
    if options.save:
        options.save.parent.mkdir(parents=True, exist_ok=True)
        options.save.write_text(json.dumps(figures, indent=1) + "\n")


def rounds_of(milliseconds: float) -> int:
    """Return how many rounds take so long on this machine."""
    start = time.process_time()
    hashed("warm", 200_000)
    return round(milliseconds / 1e3 / ((time.process_time() - start) / 200_000))


def compare(folder: Path, cases: Sequence[int], repeats: int, workers: int, rounds: int) -> dict[str, Any]:
    """Return seconds of both engines, their difference in percent and for each case, and what they take to start."""
    from ffhqref.engine import LocalEngine, RayEngine, run_stage

    runs = 0

    def timed(engine: Any, stage: Work, count: int) -> tuple[float, list[str]]:
        nonlocal runs
        runs += 1
        rows = [{"case": case} for case in range(count)]
        start = time.perf_counter()
        results = run_stage(stage, rows, engine=engine, journal_dir=folder / str(runs))
        return time.perf_counter() - start, [result["sha256"] for result in results]

    figures: dict[str, Any] = {}
    engines = {"local": LocalEngine(workers), "ray": RayEngine(workers=workers, root=folder)}
    try:
        for name, engine in engines.items():
            figures[f"{name}: seconds to start"] = timed(engine, Work("start", 1), 20 * workers)[0]
        for label, work in (("", Work("work", rounds)), (" without any work", Work("nothing", 1))):
            for count in cases:
                best = dict.fromkeys(engines, float("inf"))
                for _ in range(repeats):
                    found = {name: timed(engine, work, count) for name, engine in engines.items()}
                    assert found["local"][1] == found["ray"][1]
                    best = {name: min(best[name], seconds) for name, (seconds, _) in found.items()}
                more = best["ray"] - best["local"]
                figures |= {f"{name}: seconds for {count} cases{label}": best[name] for name in engines}
                if not label:
                    figures[f"overhead for {count} cases, %"] = 100.0 * more / best["local"]
                figures[f"overhead of a case of {count}{label}, ms"] = 1e3 * more / count
    finally:
        for engine in engines.values():
            engine.close()
    return figures


if __name__ == "__main__":
    main()
