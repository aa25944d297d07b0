"""The image of a training's losses against its file of numbers."""

import csv

import cv2
import numpy as np
import pytest

from ffhqref.core.errors import DatasetError
from ffhqref.training.curves import curve_figure, draw_curve


def write(path, losses, names):
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [["step", "learning_rate", *names], *([step, 1e-4, *row] for step, row in enumerate(losses))]
        )
    return path


def test_panels_show_every_step_and_the_mean_of_its_neighbours(tmp_path):
    rng = np.random.default_rng(0)
    loss, margin, never, count = rng.uniform(0.1, 2, 230), rng.normal(size=230), np.zeros(230), rng.integers(1, 5, 230)
    table = write(
        tmp_path / "curve.csv", np.stack([loss, margin, never, count], 1), ["loss", "margin", "never", "count"]
    )
    figure = curve_figure(table)
    assert [panel.get_title("left").split(":")[0] for panel in figure.axes] == ["loss", "margin", "count"]
    assert [panel.get_yscale() for panel in figure.axes] == ["log", "linear", "linear"]
    for panel, values in zip(figure.axes, (loss, margin, count), strict=True):
        every, mean = panel.get_lines()
        assert every.get_xdata().tolist() == list(range(1, 231))
        assert every.get_ydata().tolist() == values.tolist()
        np.testing.assert_allclose(mean.get_ydata(), np.convolve(values, np.full(9, 1 / 9), "valid"), atol=1e-12)
        assert mean.get_xdata()[0] == 9
        assert f"{values[-9:].mean():.4g} (mean of 9 steps)" in panel.get_title("left")


@pytest.mark.parametrize("steps", [1, 7])
def test_the_first_steps_are_a_picture_already(tmp_path, steps):
    losses = np.linspace(1, 2, steps)[:, None]
    assert draw_curve(write(tmp_path / "curve.csv", losses, ["loss"]), tmp_path / "curve.png")
    picture = cv2.imread(str(tmp_path / "curve.png"))
    assert picture is not None
    assert picture.min() < 128


def test_a_damaged_file_is_told_in_one_line(tmp_path):
    for rows, words in (([], "no step yet"), ([["x"]], "expected numbers")):
        with pytest.raises(DatasetError, match=words):
            draw_curve(write(tmp_path / "curve.csv", rows, ["loss"]), tmp_path / "curve.png")
