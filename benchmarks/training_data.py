"""Training examples a second: the present loaders against those of another checkout, and the data set by its workers.

    git worktree add /tmp/before d89f6cc
    python benchmarks/training_data.py --against /tmp/before [--batches 8] [--rounds 3] [--json FILE]

Each side draws the same batches of ReF-LDM's and of FaceMe's training from the same images of 512 pixels, in turns,
each in a process of its own; the batches must be the same bits. Their seconds are the processor's, which other work on
the machine changes less, and the best round counts; those of the data set's workers are the clock's. Without
``--against`` only this checkout is measured.
`ffhqref.ReferenceDataset` is then read by a loader with 0, 1 and 2 workers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np

SIDE, PEOPLE, EACH, BATCH = 512, 8, 4, 4
HERE = Path(__file__).resolve().parent.parent


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="loaders of training examples")
    parser.add_argument("--against", type=Path)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        way, folder = options.one
        print(json.dumps(measure(way, Path(folder), options.batches)))
        return
    sides = {"before": options.against, "here": HERE} if options.against else {"here": HERE}
    found: dict[str, list[dict[str, str | float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        make_world(Path(folder))
        for _ in range(options.rounds):
            for way in ("refldm", "faceme"):
                for side, checkout in sides.items():
                    found.setdefault(f"{way} {side}", []).append(ask(checkout, way, folder, options.batches))
        for workers in (0, 1, 2):
            found[f"data set, {workers} workers"] = [ask(HERE, f"dataset{workers}", folder, options.batches)]
    rates = {name: max(float(one["rate"]) for one in runs) for name, runs in found.items()}
    digests = {name: {str(one["digest"]) for one in runs} for name, runs in found.items()}
    for name, rate in rates.items():
        print(f"{name:24} {rate:7.2f} examples/s  sha256 {min(digests[name])[:12]}")
    compare(rates, digests)
    if options.json:
        options.json.write_text(json.dumps({"rates": rates, "batches": options.batches}, indent=1) + "\n")


def compare(rates: dict[str, float], digests: dict[str, set[str]]) -> None:
    """Print ratios, and fail where two sides that must have made the same batches have not."""
    for way in ("refldm", "faceme"):
        before, here = f"{way} before", f"{way} here"
        if before not in rates:
            continue
        if len(digests[before] | digests[here]) > 1:
            raise SystemExit(f"{way}: the batches differ")
        print(f"{way}: same batches, {rates[here] / rates[before]:.3f} of the rate before")
    if len(set().union(*(digests[name] for name in digests if name.startswith("data set")))) > 1:
        raise SystemExit("the data set depends on its workers")


def ask(checkout: Path, way: str, folder: str, batches: int) -> dict[str, str | float]:
    """Measure a way in a process of its own, with the package of a checkout."""
    command = [sys.executable, __file__, f"--batches={batches}", "--one", way, folder]
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def make_world(folder: Path) -> None:
    """Write images of several people, and features of each."""
    import cv2

    from ffhqref.core.images import save_png
    from ffhqref.training.faceme.features import write_feature
    from ffhqref.training.faceme.lists import feature_of

    rng = np.random.default_rng(0)
    for number in range(PEOPLE * EACH):
        small = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        save_png(folder / f"{number:05d}.png", cv2.resize(small, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC))
        feature = feature_of(folder, f"{number:05d}")
        write_feature(feature.identity, rng.standard_normal(512))
        write_feature(feature.clip, rng.standard_normal(2048))


def measure(way: str, folder: Path, batches: int) -> dict[str, str | float]:
    """Return examples a second after the first batch, and the hash of all batches."""
    digest, moments = hashlib.sha256(), []
    source = {"refldm": refldm, "faceme": faceme}.get(way)
    made: Iterable[tuple[object, ...]]
    made = source(folder, batches) if source else dataset(folder, batches, int(way.removeprefix("dataset")))
    clock = time.process_time if source else time.perf_counter
    for batch in made:
        moments.append(clock())
        for part in batch:
            digest.update(np.ascontiguousarray(part).tobytes())
    spent = moments[-1] - moments[0]
    return {"rate": BATCH * (len(moments) - 1) / spent, "digest": digest.hexdigest()}


def items(folder: Path) -> list[object]:
    """Return what is trained on; images of one person follow each other."""
    from ffhqref.training.faces import items_by_person

    files = sorted(folder.glob("*.png"))
    return list(items_by_person((str(path), str(place // EACH)) for place, path in enumerate(files)))


def refldm(folder: Path, batches: int) -> Iterator[tuple[object, ...]]:
    """Yield batches of ReF-LDM's training."""
    from ffhqref.training.faces import SmallImages, degradation
    from ffhqref.training.refldm.data import FaceBatches

    made: Callable[..., FaceBatches] = FaceBatches
    source = made(
        items(folder), SmallImages(SIDE), degradation("refldm-train", SIDE), batch_size=BATCH, references=5, vary=True
    )
    for index in range(batches):
        batch = source(index, 0, 1)
        yield batch.gt, batch.lq, batch.references


def faceme(folder: Path, batches: int) -> Iterator[tuple[object, ...]]:
    """Yield batches of FaceMe's training."""
    from ffhqref.training.faceme.data import BatchRules, FaceMeBatches
    from ffhqref.training.faceme.features import FeatureFiles
    from ffhqref.training.faceme.lists import Sample, feature_of
    from ffhqref.training.faceme.references import PoolRules
    from ffhqref.training.faces import SmallImages, unrounded_degradation

    names = [path.stem for path in sorted(folder.glob("*.png"))]
    samples = [
        Sample(str(folder / f"{name}.png"), feature_of(folder, name), (feature_of(folder, other),))
        for name, other in zip(names, [*names[1:], names[0]], strict=True)
    ]
    degrade = unrounded_degradation("faceme", SIDE)
    source = FaceMeBatches(samples, SmallImages(SIDE), degrade, FeatureFiles(), BatchRules(BATCH), PoolRules())
    for index in range(batches):
        batch = source(index, 0, 1)
        yield batch.target, batch.condition, batch.identity, batch.clip


def dataset(folder: Path, batches: int, workers: int) -> Iterator[tuple[object, ...]]:
    """Yield batches of the data set."""
    from itertools import islice

    from torch.utils.data import DataLoader

    from ffhqref.training.dataset import KeyedSampler, ReferenceDataset, collate

    data = ReferenceDataset(items(folder), references=(1, 3))
    loader = DataLoader(data, BATCH, sampler=KeyedSampler(data), num_workers=workers, collate_fn=collate)
    for batch in islice(loader, batches):
        yield batch.lq, batch.references, batch.gt


if __name__ == "__main__":
    main()
