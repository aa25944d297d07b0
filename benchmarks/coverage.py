"""How often a 95 % interval contains the mean of the population, beside a bootstrap over single images.

    python benchmarks/coverage.py [--sizes 100] [--columns 200] [--save benchmarks/results/coverage.json]

Values are simulated with half of their variance belonging to the person, one to nine images each, in the three shapes
of tests/leaderboard/test_statistics.py: normal, skewed as LPIPS, bounded as cosines. False positives: rounds in which
any of six equally good methods "beats" another at 5 %, corrected.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np

from ffhqref.leaderboard.statistics import mean_interval, naive_interval, paired_tests

SIMULATION = Path(__file__).parents[1] / "tests" / "leaderboard" / "test_statistics.py"
PEOPLE = (3, 4, 5, 6, 8, 12, 24, 60, 150)


def simulation() -> Any:
    """Return the module with the simulated people and values."""
    spec = importlib.util.spec_from_file_location("simulation", SIMULATION)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def coverage(world: Any, shape: str, people: int, sizes: int, columns: int) -> dict[str, Any]:
    """Return the shares of intervals that contain the truth, over many draws of images per person and of values."""
    rng = np.random.default_rng(people)
    transform, truth = world.SHAPES[shape]
    ours, naive = 0, 0
    for _ in range(sizes):
        identities = world.people(rng, people)
        values = transform(world.correlated(rng, identities, columns))
        found, single = mean_interval(values, identities, n_bootstrap=500), naive_interval(values, n_bootstrap=500)
        ours += int(((found.low <= truth) & (truth <= found.high)).sum())
        naive += int(((single.low <= truth) & (truth <= single.high)).sum())
    draws = sizes * columns
    return {"people": people, "shape": shape, "coverage": ours / draws, "naive": naive / draws, "intervals": draws}


def false_positives(world: Any, shape: str, people: int, rounds: int) -> dict[str, Any]:
    """Return the share of rounds in which one of six equally good methods beats another."""
    rng = np.random.default_rng(people)
    transform, _ = world.SHAPES[shape]
    wrong = 0
    for index in range(rounds):
        identities = world.people(rng, people)
        shared = world.correlated(rng, identities, 1)
        own = np.stack([world.correlated(rng, identities, 1)[:, 0] for _ in range(6)], axis=1)
        tests = paired_tests(transform(0.7 * shared + 0.7 * own), identities, seed=index, n_bootstrap=300)
        wrong += bool((tests.p_adjusted <= 0.05).any())
    return {"people": people, "shape": shape, "false_positives": wrong / rounds, "rounds": rounds}


def main() -> None:
    """Print one line a cell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, default=100, help="draws of how many images each person has")
    parser.add_argument("--columns", type=int, default=200, help="draws of values for each of them")
    parser.add_argument("--rounds", type=int, default=4000, help="of the false positives")
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    world = simulation()
    cells, wrong = [], []
    print("people  shape         95 % interval  naive bootstrap over images")
    for people in PEOPLE:
        for shape in world.SHAPES:
            cells.append(coverage(world, shape, people, options.sizes, options.columns))
            print(f"{people:6d}  {shape:12s}  {cells[-1]['coverage']:13.3f}  {cells[-1]['naive']:.3f}", flush=True)
    print("people  shape         false positives of six equal methods")
    for people in (8, 30):
        for shape in world.SHAPES:
            wrong.append(false_positives(world, shape, people, options.rounds))
            print(f"{people:6d}  {shape:12s}  {wrong[-1]['false_positives']:.3f}", flush=True)
    if options.save:
        date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        tree = {"date": date, "coverage": cells, "false_positives": wrong}
        options.save.write_text(json.dumps(tree, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
