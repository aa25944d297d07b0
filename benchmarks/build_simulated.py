"""Time a simulated FFHQ from embeddings to the published CSV files, and check that every byte is the same each time.

    python benchmarks/build_simulated.py --save benchmarks/results/build_simulated.json

70,000 embeddings with 20,405 images of 6,523 people go through pairs, identities, splits, references, audit and
export, in a fresh process for each number of threads, and once more with the images in another order.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ffhqref.reference_sets.simulate import simulate_embeddings


def child(source: Path, target: Path, threads: int, grouping: str, shuffle: bool) -> None:
    """Build from saved embeddings and print time, memory and counts."""
    import torch

    from ffhqref.reference_sets.build import BuildConfig, build_reference_set
    from ffhqref.reference_sets.release import make_release, write_release

    torch.set_num_threads(threads)
    vectors = np.load(source / "vectors.npy")
    ids = json.loads((source / "ids.json").read_text())
    if shuffle:
        order = np.random.default_rng(1).permutation(len(ids))
        ids, vectors = [ids[i] for i in order], vectors[order]
    start = time.perf_counter()
    built = build_reference_set(ids, vectors, BuildConfig(grouping=grouping))
    write_release(target, make_release(built.identities, built.references))
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes(), "counts": built.counts()}))


def peak_bytes() -> int:
    """Return the peak memory of this process since it began (getrusage would count its parent's too)."""
    return 1024 * int(next(line for line in Path("/proc/self/status").open() if line.startswith("VmHWM")).split()[1])


def digest(folder: Path) -> str:
    """Return one hash of the names and bytes of all files under a folder."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            whole.update(path.name.encode() + path.read_bytes())
    return whole.hexdigest()


def main() -> None:
    """Run all builds and print times and equality."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=70_000)
    parser.add_argument("--threads", type=int, nargs="+", default=[2, 1, 4])
    parser.add_argument("--grouping", default="components")
    parser.add_argument("--save", type=Path)
    parser.add_argument("--child", type=Path, nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--shuffle", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(*arguments.child, arguments.threads[0], arguments.grouping, arguments.shuffle)
        return
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder)
        scale = arguments.images / 70_000
        ids, vectors, _ = simulate_embeddings(arguments.images, round(20_405 * scale), round(6_523 * scale))
        np.save(source / "vectors.npy", vectors)
        (source / "ids.json").write_text(json.dumps(ids))
        runs = []
        for k, threads in enumerate([*arguments.threads, arguments.threads[0]]):
            shuffled = k == len(arguments.threads)
            target = source / f"run{k}"
            command = [sys.executable, __file__, "--child", str(source), str(target), "--threads", str(threads)]
            command += ["--grouping", arguments.grouping, *(["--shuffle"] if shuffled else [])]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            run = {"threads": threads, "shuffled": shuffled, "sha256": digest(target), **json.loads(done.stdout)}
            runs.append(run)
            order = ", images shuffled" if shuffled else ""
            print(
                f"{threads} threads{order}: {run['seconds']:.1f} s, peak {run['peak_bytes'] / 1e9:.2f} GB, files "
                f"{run['sha256'][:12]}",
                flush=True,
            )
    equal = len({run["sha256"] for run in runs}) == 1
    for split, counts in runs[0]["counts"].items():
        print(f"  {split:6s}" + "".join(f"{value:9,} {name}" for name, value in counts.items()))
    print("every run wrote the same bytes: " + ("yes" if equal else "NO"))
    if arguments.save:
        arguments.save.parent.mkdir(parents=True, exist_ok=True)
        arguments.save.write_text(
            json.dumps({"images": arguments.images, "equal": equal, "runs": runs}, indent=2) + "\n"
        )
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    main()
