"""Training examples a second: the present loaders against those of another checkout, and the data set by its workers.

    git worktree add /tmp/before d89f6cc
    python benchmarks/training_data.py --against /tmp/before [--batches 8] [--json FILE]

Both sides' loaders (``ffhqref/training/{refldm,faceme}/data.py``) draw the same batches of 512-pixel images in one
process, batch by batch in turns; the batches must be the same bits. Their seconds are the processor's, the sum of the
batches after the first. `ffhqref.ReferenceDataset` is then read by a loader with 0, 1 and 2 workers, by the clock.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

SIDE, PEOPLE, EACH, BATCH = 512, 8, 4, 4
HERE = Path(__file__).resolve().parent.parent
Source = Callable[[int, int, int], object]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="loaders of training examples")
    parser.add_argument("--against", type=Path, default=HERE)
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sys.path.insert(0, str(HERE))  # an installed package may be another checkout's
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_world(folder)
        for way, make in (("refldm", refldm), ("faceme", faceme)):
            before, here = (make(loader(checkout, way), folder) for checkout in (options.against, HERE))
            found |= compare(way, before, here, options.batches)
        for workers in (0, 1, 2):
            found[f"data set, {workers} workers"] = dataset(folder, options.batches, workers)
    for name, rate in found.items():
        print(f"{name:24} {rate:7.2f} examples/s")
    if options.json:
        options.json.write_text(json.dumps({"batches": options.batches, "rates": found}, indent=1) + "\n")


def compare(way: str, before: Source, here: Source, batches: int) -> dict[str, float]:
    """Return examples a second of both sides; ends the program where their batches differ."""
    spent = [0.0, 0.0]
    for index in range(batches + 1):
        made = []
        for side in (0, 1) if index % 2 else (1, 0):
            start = time.process_time()
            made.append(vars((before, here)[side](index, 0, 1)))
            spent[side] += (time.process_time() - start) * (index > 0)
        for part, value in made[0].items():
            same = torch.equal(value, made[1][part]) if isinstance(value, torch.Tensor) else value == made[1][part]
            if not same:
                raise SystemExit(f"{way}: batch {index} differs in {part}")
    print(f"{way}: {batches + 1} batches the same, {spent[0] / spent[1]:.3f} of the rate before")
    return {f"{way} {name}": BATCH * batches / seconds for name, seconds in zip(("before", "here"), spent, strict=True)}


def loader(checkout: Path, way: str) -> ModuleType:
    """Load a checkout's module of batches beside the installed one."""
    path = checkout / "ffhqref" / "training" / way / "data.py"
    spec = importlib.util.spec_from_file_location(f"{way}_{abs(hash(path))}", path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"no module {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


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


def refldm(module: ModuleType, folder: Path) -> Source:
    """Return batches of ReF-LDM's training by a checkout's module."""
    from ffhqref.training.faces import degradation

    rules = {"batch_size": BATCH, "references": 5, "vary": True}
    made: Source = module.FaceBatches(people(folder), images(folder), degradation("refldm-train", SIDE), **rules)
    return made


def faceme(module: ModuleType, folder: Path) -> Source:
    """Return batches of FaceMe's training by a checkout's module."""
    from ffhqref.training.faceme.features import FeatureFiles
    from ffhqref.training.faceme.lists import Sample, feature_of
    from ffhqref.training.faceme.references import PoolRules
    from ffhqref.training.faces import unrounded_degradation

    names = [path.stem for path in sorted(folder.glob("*.png"))]
    samples = [
        Sample(str(folder / f"{name}.png"), feature_of(folder, name), (feature_of(folder, other),))
        for name, other in zip(names, [*names[1:], names[0]], strict=True)
    ]
    degrade, features = unrounded_degradation("faceme", SIDE), FeatureFiles()
    made: Source = module.FaceMeBatches(
        samples, images(folder), degrade, features, module.BatchRules(BATCH), PoolRules()
    )
    return made


def people(folder: Path) -> list[object]:
    """Return what is trained on; images of one person follow each other."""
    from ffhqref.training.faces import items_by_person

    files = sorted(folder.glob("*.png"))
    return list(items_by_person((str(path), str(place // EACH)) for place, path in enumerate(files)))


def images(folder: Path) -> Callable[[str], object]:
    """Return a reader that has all images in memory, so that decoding does not blur what is compared."""
    from ffhqref.training.faces import SmallImages

    read = SmallImages(SIDE)
    for path in sorted(folder.glob("*.png")):
        read(str(path))
    return read


def dataset(folder: Path, batches: int, workers: int) -> float:
    """Return examples a second of the data set after the first batch."""
    from torch.utils.data import DataLoader

    from ffhqref.training.dataset import KeyedSampler, ReferenceDataset, collate

    data = ReferenceDataset(people(folder), references=(1, 3))  # type: ignore[arg-type]
    made = DataLoader(data, BATCH, sampler=KeyedSampler(data), num_workers=workers, collate_fn=collate)
    moments = [time.perf_counter() for _ in islice(made, batches)]
    return BATCH * (len(moments) - 1) / (moments[-1] - moments[0])


if __name__ == "__main__":
    main()
