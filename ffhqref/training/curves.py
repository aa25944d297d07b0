"""A image of a training's losses, made anew while it runs."""

from __future__ import annotations

import csv
import importlib.util
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import DatasetError
from ffhqref.core.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

PARTS = 25
"""A running mean is taken over this part of the steps."""


def draw_curve(curve: str | Path, image: str | Path) -> bool:
    """Draw ``curve.csv`` as a PNG beside it.

    Args:
        curve: the file that `ffhqref.training.loop.train` writes: step, learning_rate, and a column a loss.
        image: the PNG, replaced as a whole.

    Returns:
        False where matplotlib is not installed (extra ``plots``): then nothing is drawn.

    Raises:
        DatasetError: see `curve_figure`.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return False
    data = io.BytesIO()
    curve_figure(curve).savefig(data, format="png", dpi=110)
    write_atomic(Path(image), data.getvalue())
    return True


def curve_figure(curve: str | Path) -> Figure:
    """Return a figure with a panel for each column that varies: every step, and the running mean.

    Losses are drawn on a logarithmic scale where they are positive; counts are not.

    Raises:
        DatasetError: no step in the file, or a cell that is no number.
    """
    from matplotlib.figure import Figure

    names, steps, values = _read(Path(curve))
    shown = [index for index in range(len(names)) if np.ptp(values[:, index])] or [0]
    width = max(1, len(steps) // PARTS)
    figure = Figure(figsize=(7, 0.5 + 2.2 * len(shown)), layout="constrained")
    for panel, index in zip(np.atleast_1d(figure.subplots(len(shown), 1, sharex=True)), shown, strict=True):
        panel.plot(steps, values[:, index], color="#9db7d5", linewidth=0.8)
        mean = running_mean(values[:, index], width)
        panel.plot(steps[width - 1 :], mean, color="#1f4e85", linewidth=1.6)
        over = f" (mean of {width} steps)" if width > 1 else ""
        panel.set_title(f"{names[index]}: {mean[-1]:.4g}{over}", loc="left")
        if (values[:, index] > 0).all() and (values[:, index] % 1).any():
            panel.set_yscale("log")
        panel.grid(alpha=0.3)
    panel.set_xlabel("step")
    return figure


def running_mean(values: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Return the mean of each run of ``width`` neighbours: [n] to [n - width + 1]."""
    sums = np.concatenate([[0.0], np.cumsum(values)])
    made: NDArray[np.float64] = (sums[width:] - sums[:-width]) / width
    return made


def _read(path: Path) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    with path.open(encoding="utf-8", newline="") as stream:
        header, *rows = list(csv.reader(stream))
    try:
        table = np.array(rows, np.float64)
    except ValueError as error:
        raise DatasetError(f"{path}: {error}; expected numbers, as training writes them") from None
    if not len(table):
        raise DatasetError(f"{path}: no step yet")
    return header[2:], table[:, 0] + 1, table[:, 2:]
