"""Time the pair search against a bare matrix product, faiss and scikit-learn, in one run.

    python benchmarks/pairs.py --threads 2 --save benchmarks/results/pairs.json

The bare product computes all N x N cosines block by block in float32 and throws them away. The matrix is symmetric, so
half of its time is what an exact float32 search cannot beat; ours may go below it where the first pass runs in
bfloat16 hardware. faiss and scikit-learn are asked for the same pairs; where ``--subset`` is smaller than ``--images``
they get that many images and their time is scaled by the square of the ratio, and the output says so. Contenders take
turns and the best of ``--repeats`` turns counts, because other work on the machine disturbs them alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits

from ffhqref.reference_sets.pairs import find_pairs
from ffhqref.reference_sets.simulate import simulate_embeddings

THRESHOLD = 0.4
BLOCK = 2048


def bare_product(vectors: np.ndarray) -> None:
    """Compute every cosine in float32, tile by tile, and keep none."""
    rows = torch.from_numpy(vectors)
    tile = torch.empty(BLOCK * BLOCK)
    for top in range(0, len(rows), BLOCK):
        for left in range(0, len(rows), BLOCK):
            a, b = rows[top : top + BLOCK], rows[left : left + BLOCK]
            torch.mm(a, b.T, out=tile[: len(a) * len(b)].view(len(a), len(b)))


def with_faiss(vectors: np.ndarray) -> int:
    """Return how many pairs faiss finds."""
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    limits, _, neighbours = index.range_search(vectors, 1.0 - THRESHOLD)
    queries = np.repeat(np.arange(len(vectors)), np.diff(limits).astype(np.int64))
    return int((queries < neighbours).sum())


def with_sklearn(vectors: np.ndarray) -> int:
    """Return how many pairs scikit-learn finds."""
    # On unit vectors |a - b|^2 = 2 (1 - cosine); the Euclidean brute force is scikit-learn's fastest exact way.
    model = NearestNeighbors(radius=float(np.sqrt(2 * THRESHOLD)), algorithm="brute", metric="euclidean").fit(vectors)
    found = model.radius_neighbors(vectors, return_distance=False)
    return int(sum((rows > i).sum() for i, rows in enumerate(found)))


def timed(call: Callable[[], object]) -> tuple[float, object]:
    """Return the seconds a call takes, and its result."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def child(path: str, threads: int) -> None:
    """Search the pairs of a saved array and print the time, the number of pairs and the peak memory of this process."""
    torch.set_num_threads(threads)
    vectors = np.load(path)
    ids = [f"{i:06d}" for i in range(len(vectors))]
    seconds, pairs = timed(lambda: find_pairs(ids, vectors, THRESHOLD))
    print(json.dumps({"seconds": seconds, "pairs": len(pairs), "peak_bytes": peak_bytes()}))


def peak_bytes() -> int:
    """Return the peak memory of this process since it began (getrusage would count its parent's too)."""
    return 1024 * int(next(line for line in Path("/proc/self/status").open() if line.startswith("VmHWM")).split()[1])


def in_child(vectors: np.ndarray, threads: int) -> dict[str, float]:
    """Return what `child` prints, from a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.npy"
        np.save(path, vectors)
        command = [sys.executable, __file__, "--child", str(path), "--threads", str(threads)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def main() -> None:
    """Run the comparison and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=70_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--subset", type=int, default=None, help="images for faiss and scikit-learn (default: all)")
    parser.add_argument("--sizes", type=int, nargs="*", default=[10_000, 20_000, 50_000, 100_000, 200_000])
    parser.add_argument("--save", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.threads)
        return

    torch.set_num_threads(arguments.threads)
    faiss.omp_set_num_threads(arguments.threads)
    n = arguments.images
    subset = min(arguments.subset or n, n)
    ids, vectors, _ = simulate_embeddings(n, int(0.29 * n), int(0.093 * n), arguments.dim)
    part = np.ascontiguousarray(vectors[:subset])
    scale = (n / subset) ** 2
    contenders: dict[str, tuple[float, Callable[[], object]]] = {
        "ours": (1.0, lambda: len(find_pairs(ids, vectors, THRESHOLD))),
        "ours_float32": (1.0, lambda: len(find_pairs(ids, vectors, THRESHOLD, precision="float32"))),
        "bare_product": (1.0, lambda: bare_product(vectors)),
        "faiss_range_search": (scale, lambda: with_faiss(part)),
        "sklearn_radius_neighbors": (scale, lambda: with_sklearn(part)),
    }
    seconds: dict[str, float] = {}
    counts: dict[str, object] = {}
    loads: list[float] = []
    find_pairs(ids[:4096], vectors[:4096], THRESHOLD)  # imports and thread pools
    with threadpool_limits(arguments.threads):
        for _ in range(arguments.repeats):
            for name, (factor, call) in contenders.items():
                taken, counts[name] = timed(call)
                seconds[name] = min(seconds.get(name, float("inf")), taken * factor)
                load = os.getloadavg()[0]
                print(f"{name}: {taken * factor:.2f} s (load of the machine {load:.1f})", file=sys.stderr, flush=True)
                loads.append(load)
    expected = len(find_pairs(ids[:subset], part, THRESHOLD))
    best_rival = min(seconds["faiss_range_search"], seconds["sklearn_radius_neighbors"])
    half = seconds["bare_product"] / 2
    result = {
        "images": n,
        "dim": arguments.dim,
        "threads": arguments.threads,
        "rivals_scaled_from": subset if subset != n else None,
        "seconds": seconds,
        "pairs": {**counts, "ours_on_subset": expected},
        "ours_to_half_product": seconds["ours"] / half,
        "ours_float32_to_half_product": seconds["ours_float32"] / half,
        "best_rival_to_ours": best_rival / seconds["ours"],
        "memory": in_child(vectors, arguments.threads),
        "growth": {},
        "highest_load_average": max(loads),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    for size in arguments.sizes:
        del vectors, part, ids
        ids, vectors, _ = simulate_embeddings(size, int(0.29 * size), int(0.093 * size), arguments.dim)
        part = vectors
        result["growth"][str(size)] = in_child(vectors, arguments.threads)
    print(f"{n:,} x {arguments.dim}, {arguments.threads} threads, pairs below {THRESHOLD}: {counts['ours']:,}")
    for name, value in seconds.items():
        scaled = f"   (scaled from {subset:,} images)" if contenders[name][0] != 1.0 else ""
        print(f"  {name:26s}{value:8.2f} s{scaled}")
    print(f"ours / half of the bare product:          {result['ours_to_half_product']:.2f}")
    print(f"ours in float32 / half of it:             {result['ours_float32_to_half_product']:.2f}")
    print(f"best of faiss and scikit-learn / ours:    {result['best_rival_to_ours']:.2f}")
    print(f"peak memory of a process that does it:    {result['memory']['peak_bytes'] / 1e9:.2f} GB")
    for size, found in result["growth"].items():
        print(f"  {int(size):8,} images: {found['seconds']:7.2f} s, peak {found['peak_bytes'] / 1e9:.2f} GB")
    agreed = counts["faiss_range_search"] == counts["sklearn_radius_neighbors"] == expected
    print("faiss and scikit-learn find as many pairs: " + ("yes" if agreed else "no (float32 at the threshold)"))
    if arguments.save:
        arguments.save.parent.mkdir(parents=True, exist_ok=True)
        arguments.save.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
