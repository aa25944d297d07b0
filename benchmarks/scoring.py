"""Time per image of the offline metrics (PSNR, SSIM, NIQE, IDS) against pyiqa image by image, with equal values.

Run: python benchmarks/scoring.py [--cases 12] [--methods 5] [--threads 2] [--save benchmarks/results/scoring.json]

The other side is what a user would write, and what ReF-LDM's scripts/eval.py does: read output and ground truth, call
pyiqa's psnr, ssim and niqe, embed both images and take the cosine. Both sides read the same PNG files and embed with
the same network (dlib). Everything is timed in one run, after one image of warm-up on each side.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CASES_OF_FFHQ_REF = 857 * 5 * 2


def main() -> None:
    """Print and save the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=12)
    parser.add_argument("--methods", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")

    import cv2
    import torch

    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        figures = compare(Path(folder), options.cases, options.methods)
    figures |= {"threads": options.threads, "cpu": platform.processor() or platform.machine()}
    figures |= {"load average of the machine": os.getloadavg()[0]}
    for name, value in figures.items():
        print(f"{name:34} {value:.6g}" if isinstance(value, float) else f"{name:34} {value}")
    if options.save:
        options.save.parent.mkdir(parents=True, exist_ok=True)
        options.save.write_text(json.dumps(figures, indent=1) + "\n")


def make_rows(folder: Path, cases: int, methods: int) -> list[Any]:
    """Write blurred and noisy versions of the sample's faces as outputs of so many methods."""
    import cv2
    import numpy as np

    from ffhqref.core.hashing import sha256_file
    from ffhqref.core.images import read_rgb, save_png
    from ffhqref.metrics.scoring import ScoreRow

    sample = Path(__file__).parent.parent / "ffhqref" / "datasets" / "sample"
    generator = np.random.default_rng(0)
    rows = []
    for file in sorted(sample.rglob("*.jpg"))[:cases]:
        gt = read_rgb(file)
        truth = folder / f"gt_{file.stem}.png"
        save_png(truth, gt)
        for method in range(methods):
            blurred = cv2.GaussianBlur(gt, (0, 0), 0.5 + method)
            noisy = np.clip(blurred + generator.normal(0, 2 + method, gt.shape), 0, 255).astype(np.uint8)
            path = folder / f"{method}_{file.stem}.png"
            save_png(path, noisy)
            rows.append(
                ScoreRow(
                    f"method{method}", "bench", file.stem, str(path), sha256_file(path), str(truth), sha256_file(truth)
                )
            )
    return rows


def compare(folder: Path, cases: int, methods: int) -> dict[str, Any]:
    """Return times per image in milliseconds, their ratio, and the largest relative difference of the values."""
    import numpy as np

    from ffhqref.engine import LocalEngine
    from ffhqref.metrics.scoring import resolve_metrics, score

    names = ["psnr", "ssim", "niqe", "ids"]
    rows = make_rows(folder, cases + 1, methods)
    warm, rows = rows[:methods], rows[methods:]

    def timed(label: str, chosen: list[str]) -> tuple[float, Any]:
        metrics = resolve_metrics(chosen)
        score(warm, metrics, engine=LocalEngine(1), journal_dir=folder / f"warm-{label}")
        start = time.perf_counter()
        scores = score(rows, metrics, engine=LocalEngine(1), journal_dir=folder / label)
        return (time.perf_counter() - start) / len(rows) * 1e3, scores.frame

    ours, frame = timed("all", names)
    ours_without, _ = timed("without-ids", names[:3])
    reference = PlainLoop(folder)
    reference(warm[0])
    reference.seconds = dict.fromkeys(reference.seconds, 0.0)
    start = time.perf_counter()
    expected = [reference(row) for row in rows]
    theirs = (time.perf_counter() - start) / len(rows) * 1e3

    table = frame.pivot_table(index=["method", "case_id"], columns="metric", values="value")
    found = np.array([[table.loc[(row.method, row.case_id), name] for name in names] for row in rows])
    worst = np.abs(found / np.array(expected) - 1.0).max(axis=0)
    theirs_without = sum(reference.seconds[name] for name in ("read", "psnr", "ssim", "niqe")) / len(rows) * 1e3
    figures = {
        "images": len(rows),
        "ffhqref ms per image": ours,
        "pyiqa loop ms per image": theirs,
        "times faster": theirs / ours,
        "ffhqref ms per image, no ids": ours_without,
        "pyiqa loop ms per image, no ids": theirs_without,
        "times faster, no ids": theirs_without / ours_without,
        "minutes for 857 x 5 x 2": ours * CASES_OF_FFHQ_REF / 60e3,
        "minutes for 857 x 5 x 2, pyiqa": theirs * CASES_OF_FFHQ_REF / 60e3,
    }
    figures |= {f"loop {name} ms": seconds / len(rows) * 1e3 for name, seconds in reference.seconds.items()}
    return figures | {f"{name} relative difference": float(value) for name, value in zip(names, worst, strict=True)}


class PlainLoop:
    """What a user would run: pyiqa's metrics and two embeddings, one image after the other."""

    def __init__(self, folder: Path) -> None:
        from scipy.io import savemat

        from ffhqref.core.compat import ensure_torchvision
        from ffhqref.faces import make_embedder
        from ffhqref.metrics.niqe import pristine_model

        ensure_torchvision()
        import pyiqa

        mean, covariance = pristine_model()
        savemat(folder / "niqe.mat", {"mu_prisparam": mean[None], "cov_prisparam": covariance})
        self.psnr = pyiqa.create_metric("psnr", device="cpu")
        self.ssim = pyiqa.create_metric("ssim", device="cpu")
        self.niqe = pyiqa.create_metric("niqe", device="cpu", pretrained_model_path=str(folder / "niqe.mat"))
        self.embedder = make_embedder("dlib")
        self.seconds = dict.fromkeys(("read", "psnr", "ssim", "niqe", "ids"), 0.0)

    def __call__(self, row: Any) -> list[float]:
        """Return the four values of one output."""
        import numpy as np

        from ffhqref.core.images import read_rgb, to_tensor
        from ffhqref.faces import embed

        def timed(name: str, work: Callable[[], Any]) -> Any:
            start = time.perf_counter()
            value = work()
            self.seconds[name] += time.perf_counter() - start
            return value

        pictures = timed("read", lambda: [read_rgb(row.output_path), read_rgb(row.gt_path)])
        output, gt = (to_tensor([picture]) for picture in pictures)
        values = [
            timed("psnr", lambda: float(self.psnr(output, gt))),
            timed("ssim", lambda: float(self.ssim(output, gt))),
            timed("niqe", lambda: float(self.niqe(output))),
        ]
        vectors = timed("ids", lambda: embed(np.stack(pictures), self.embedder))
        return [*values, float(vectors[0].astype(np.float64) @ vectors[1].astype(np.float64))]


if __name__ == "__main__":
    main()
