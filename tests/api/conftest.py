"""Folders of four small scenes with a workspace of one evaluated folder, made once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import ffhqref
from ffhqref.core.images import save_png


@dataclass(frozen=True)
class World:
    """Ground truths, LQ images, references and outputs, and a workspace in which the outputs were evaluated."""

    folder: Path
    root: Path
    first: ffhqref.Evaluation


def scene(seed: int, noise: float) -> np.ndarray:
    """Return a scene uint8 [512, 512, 3]; one seed is one scene."""
    base = np.kron(np.random.default_rng(seed).integers(40, 200, (8, 8, 3)), np.ones((64, 64, 1)))
    noisy = base + np.random.default_rng(seed + 99).normal(0, noise, base.shape) if noise else base
    return np.clip(np.round(noisy), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """See `World`."""
    folder = tmp_path_factory.mktemp("library")
    for number, name in enumerate(("ann/1", "ann/2", "bob/1", "cy/1")):
        for kind, noise in (("gt", 0), ("lq", 40), ("out", 6 * (number + 1))):
            save_png(folder / kind / f"{name}.png", scene(number, noise))
        save_png(folder / "refs" / name.split("/")[0] / f"r{number}.png", scene(number, 9))
    first = ffhqref.evaluate(
        folder / "out", name="first", metrics=["psnr", "ssim", "ids", "ids_ref"], root=folder / "w",
        gt=folder / "gt", lq=folder / "lq", references=folder / "refs", overrides=["report.n_bootstrap=50"],
    )  # fmt: skip
    return World(folder, folder / "w", first)
