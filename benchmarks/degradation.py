"""Images degraded per second: ffhqref against a straight transcription of the published steps, in one run.

    python benchmarks/degradation.py [--images 40] [--repeats 5] [--save]

Both sides do the same work on the same 512x512 images in memory and give the same images (checked). Then the
whole stage, files included, is timed with one and with two worker processes.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from ffhqref.core.hashing import sha256_file
from ffhqref.core.images import save_png
from ffhqref.degradation import Parameters, apply, draw
from ffhqref.degradation.stage import DegradeRow, DegradeStage
from ffhqref.engine import LocalEngine, run_stage


def transcription(image: np.ndarray, drawn: Parameters) -> np.ndarray:
    """Degrade float32 RGB [H, W, 3] in 0..255 step by step, with global noise (ReF-LDM, ldm/data/degradations.py)."""
    height, width = image.shape[:2]
    picture = cv2.cvtColor(image, cv2.COLOR_RGB2BGR) / 255
    angle = drawn.rotation
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    covariance = np.dot(turn, np.dot(np.array([[drawn.sigma_x**2, 0], [0, drawn.sigma_y**2]]), turn.T))
    axis = np.arange(-20.0, 21.0)
    places = np.stack(np.meshgrid(axis, axis), axis=-1)
    kernel = np.exp(-0.5 * np.sum(np.dot(places, np.linalg.inv(covariance)) * places, axis=-1))
    kernel = kernel / np.sum(kernel)
    kernel = kernel / np.sum(kernel)
    picture = cv2.filter2D(picture, -1, kernel)
    size = (int(width // drawn.scale), int(height // drawn.scale))
    picture = cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR)
    noise = np.float32(np.random.randn(*picture.shape)) * drawn.noise_sigma / 255  # noqa: NPY002
    picture = np.clip(picture + noise, 0, 1)
    _, data = cv2.imencode(".jpg", picture * 255, [cv2.IMWRITE_JPEG_QUALITY, int(drawn.jpeg_quality)])
    picture = np.float32(cv2.imdecode(data, 1)) / 255
    picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
    picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    return np.clip((picture * 255).round(), 0, 255).astype(np.uint8)


def pictures(count: int) -> list[np.ndarray]:
    """Return random smooth images with texture, uint8 RGB [512, 512, 3]."""
    rng = np.random.default_rng(1)
    made = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).resize((512, 512), 3)
        made.append(np.clip(np.array(coarse, int) + rng.integers(-10, 11, (512, 512, 3)), 0, 255).astype(np.uint8))
    return made


def compare(images: list[np.ndarray], level: str, repeats: int) -> dict[str, float]:
    """Time both ways on the same images and parameters, image by image in turn.

    Ours includes drawing the parameters and seeding the noise of each image; the transcription gets the
    parameters for nothing.
    """
    worst = 0
    seconds = {"transcription": 0.0, "ours": 0.0}
    for number, image in enumerate(images):
        drawn = draw(level, 2024, str(number))
        real = image.astype(np.float32)

        def straight(real: np.ndarray = real, drawn: Parameters = drawn) -> np.ndarray:
            return transcription(real, drawn)

        def ours(image: np.ndarray = image, number: int = number) -> np.ndarray:
            return apply(image, draw(level, 2024, str(number)))

        best = {"transcription": math.inf, "ours": math.inf}
        for _ in range(repeats):
            for name, work in (("transcription", straight), ("ours", ours)):
                start = time.perf_counter()
                work()
                best[name] = min(best[name], time.perf_counter() - start)
        for name, value in best.items():
            seconds[name] += value
        np.random.seed([drawn.seed & 0xFFFFFFFF, drawn.seed >> 32])  # noqa: NPY002
        np.random.random_sample(drawn.noise_skip)  # noqa: NPY002
        worst = max(worst, int(np.abs(straight().astype(int) - ours()).max()))
    return {**{name: len(images) / value for name, value in seconds.items()}, "largest_difference": worst}


def processes(images: list[np.ndarray], repeats: int) -> dict[str, float]:
    """Time the stage with files, by number of worker processes; starting them is timed apart and taken off."""
    speeds = {}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rows = []
        for number, image in enumerate(images):
            path = root / f"{number}.png"
            save_png(path, image)
            digest = sha256_file(path)
            rows.extend(
                DegradeRow(f"{number}-{copy}", str(path), digest, "severe", 1, f"lq/{number}-{copy}.png")
                for copy in range(4)
            )
        for repeat in range(repeats):
            for workers in (1, 2):
                target = root / f"run{repeat}{workers}"
                arrivals: list[tuple[float, int]] = []
                run_stage(
                    DegradeStage(target), rows, engine=LocalEngine(workers), journal_dir=target / "journal",
                    progress=lambda _, done, __, log=arrivals: log.append((time.perf_counter(), done)),
                )  # fmt: skip
                # from the first finished batch on: without the start of the processes
                seconds = arrivals[-1][0] - arrivals[1][0]
                speed = (arrivals[-1][1] - arrivals[1][1]) / seconds
                speeds[str(workers)] = max(speeds.get(str(workers), 0.0), speed)
    return speeds


def main() -> None:
    """Run, print, and save when asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--save", action="store_true", help="write benchmarks/results/degradation.json")
    asked = parser.parse_args()
    cv2.setNumThreads(1)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    images = pictures(asked.images)
    results: dict[str, object] = {"opencv": cv2.__version__, "numpy": np.__version__, "machine": platform.machine()}
    for level in ("moderate", "severe"):
        speeds = compare(images, level, asked.repeats)
        speeds["ratio"] = speeds["ours"] / speeds["transcription"]
        results[level] = speeds
        print(
            f"{level:9} transcription {speeds['transcription']:6.1f} images/s | ours {speeds['ours']:6.1f} "
            f"({speeds['ratio']:.2f}x) | largest difference {speeds['largest_difference']:.0f} grey levels"
        )
    speeds = processes(images, max(1, asked.repeats // 2))
    results["stage"] = {**speeds, "two_over_one": speeds["2"] / speeds["1"]}
    print(
        f"stage     1 process {speeds['1']:.1f} images/s | 2 processes {speeds['2']:.1f} "
        f"({speeds['2'] / speeds['1']:.2f}x)"
    )
    if asked.save:
        path = Path(__file__).parent / "results" / "degradation.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(results, indent=1) + "\n")
        print(f"saved {path}")


if __name__ == "__main__":
    main()
