"""Images a second from files to stored vectors: one after the other against ffhqref's overlapped reading.

    python benchmarks/embedding.py --network edgeface_xs.onnx [--pictures 1000] [--threads 2] [--save]

Both sides do the same work with the same network: read, resize to 512, crop, embed, keep the vector. The loop is what
a user writes: batches of 32, network and reading in turn. Images are copies of the embedded sample, as 512 JPEG or,
with --png1024, as 1024 PNG like FFHQ's own files. The vectors of both sides are compared.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ffhqref.core.conf import SAMPLE_ROOT
from ffhqref.core.hashing import sha256_bytes
from ffhqref.core.images import read_rgb
from ffhqref.datasets.stage import ImageRow
from ffhqref.engine import LocalEngine
from ffhqref.faces.crops import crop_faces
from ffhqref.faces.embedders import OnnxEmbedder
from ffhqref.faces.stage import BATCH, EmbedStage
from ffhqref.faces.store import embed_images


def main() -> None:
    """Print one table, and save it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", required=True, help="ArcFace-like ONNX file")
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=2, help="cores, threads of the network, and threads that read")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--png1024", action="store_true")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/embedding*.json")
    options = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    cv2.setNumThreads(options.threads)
    network = {"path": options.network, "threads": options.threads}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rows = copies(root, options.pictures, options.png1024)
        stage = EmbedStage(root, "onnx", network, "ffhq_template")
        embedder = OnnxEmbedder(**network)
        seconds: dict[str, list[float]] = {"serial": [], "overlapped": []}
        serial(root, rows[: 2 * BATCH], embedder)
        for run in range(options.repeats):
            start = time.perf_counter()
            wanted = serial(root, rows, embedder)
            middle = time.perf_counter()
            found = embed_images(stage, rows, root / f"store{run}", engine=LocalEngine(options.threads)).vectors
            seconds["serial"].append(middle - start)
            seconds["overlapped"].append(time.perf_counter() - middle)
        start = time.perf_counter()
        again = embed_images(stage, rows, root / "store0", engine=LocalEngine(1)).vectors
        resumed = time.perf_counter() - start
    assert np.array_equal(again, found)
    best = {name: min(values) for name, values in seconds.items()}
    figures = {
        "pictures": len(rows),
        "kind": "1024 PNG" if options.png1024 else "512 JPEG",
        "network": Path(options.network).name,
        "cores": options.threads,
        "serial_per_second": round(len(rows) / best["serial"], 1),
        "overlapped_per_second": round(len(rows) / best["overlapped"], 1),
        "ratio": round(best["serial"] / best["overlapped"], 2),
        "resumed_seconds": round(resumed, 3),
        "largest_difference": float(np.abs(found - wanted).max()),
    }
    for name, value in figures.items():
        print(f"{name:>22}  {value}")
    if options.save:
        name = "embedding_png1024.json" if options.png1024 else "embedding.json"
        target = Path(__file__).parent / "results" / name
        target.parent.mkdir(exist_ok=True)
        target.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def serial(root: Path, rows: list[ImageRow], embedder: OnnxEmbedder) -> np.ndarray:
    """Embed batch by batch, reading and network in turn."""
    vectors = []
    for start in range(0, len(rows), BATCH):
        images = np.stack([read_rgb(root / row.path, 512) for row in rows[start : start + BATCH]])
        vectors.append(embedder(crop_faces(images, "ffhq_template", embedder)))
    return np.concatenate(vectors)


def copies(root: Path, count: int, png: bool) -> list[ImageRow]:
    """Fill a folder with copies of the sample; every copy counts as an image of its own."""
    sources = sorted(SAMPLE_ROOT.glob("*.jpg"))
    if png:
        for source in sources[:40]:
            Image.open(source).resize((1024, 1024), Image.Resampling.BICUBIC).save(root / f"{source.stem}.big.png")
        sources = sorted(root.glob("*.big.png"))
    rows = []
    for number in range(count):
        source = sources[number % len(sources)]
        name = f"{number:05d}{source.suffix}"
        data = source.read_bytes() + number.to_bytes(4)  # trailing bytes give each copy a hash of its own
        (root / name).write_bytes(data)
        rows.append(ImageRow(f"{number:05d}", name, sha256_bytes(data)))
    return rows


if __name__ == "__main__":
    main()
