"""NIQE, the natural image quality evaluator, as pyiqa computes it.

A. Mittal, R. Soundararajan, A. C. Bovik: Making a "Completely Blind" Image Quality Analyzer, IEEE SPL 20(3), 2013.
The variants in use differ by luma, resizing and borders; this one is pyiqa's ``niqe`` (ReF-LDM's choice): YIQ luma
rounded to whole grey levels, no border cropped, 96 px blocks without sharpness selection, replicated border,
MATLAB-like bicubic halving between the two scales. The pristine model is the data file ``data/niqe_pristine.npz``.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.metrics._pixels import gaussian_taps, grey_levels, luma
from ffhqref.metrics.base import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ffhqref.metrics.base import MetricBatch

BLOCK = 96
"""Size in pixels of the blocks whose statistics are taken; half of it at the second scale."""


class NIQE(Metric):
    """Distance of an image's local statistics from those of pristine photographs; lower is better.

    Needs no ground truth. At least two 96x96 blocks are needed; images without texture have no value (NaN).
    """

    higher_is_better = False
    needs = frozenset[str]()
    role = "perception"

    def __init__(self) -> None:
        mean, covariance = pristine_model()
        digest = hashlib.sha256(mean.tobytes() + covariance.tobytes()).hexdigest()[:12]
        self.signature = f"niqe|yiq-luma rounded|block 96|border 0|matlab halving|pristine@{digest} (as pyiqa)|v1"

    def __call__(self, batch: MetricBatch) -> NDArray[np.float64]:
        """Return float64 [B]."""
        images = batch.output.detach().cpu().numpy()
        return np.array([niqe(grey_levels(luma(image))) for image in images], dtype=np.float64)


@cache
def pristine_model() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean [36] and covariance [36, 36] of the features of pristine images."""
    with resources.files("ffhqref.metrics").joinpath("data/niqe_pristine.npz").open("rb") as stream:
        stored = np.load(stream, allow_pickle=False)
        return stored["mean"], stored["covariance"]


def niqe(plane: NDArray[np.float64]) -> float:
    """Return the NIQE of one luma plane float64 [H, W] in 0..255, or NaN where it is undefined."""
    rows, columns = plane.shape[0] // BLOCK, plane.shape[1] // BLOCK
    if rows * columns < 2:
        return float("nan")
    plane = np.ascontiguousarray(plane[: rows * BLOCK, : columns * BLOCK])
    fine = _block_features(_normalise(plane), BLOCK)
    coarse = _block_features(_normalise(halve(plane)), BLOCK // 2)
    features = np.concatenate([fine, coarse], axis=1)
    whole = features[~np.isnan(features).any(axis=1)]
    if len(whole) < 2:
        return float("nan")
    mean, covariance = pristine_model()
    # The mean skips single undefined features, the covariance whole blocks: MATLAB's nanmean and nancov.
    difference = mean - np.nanmean(features, axis=0)
    pooled = (covariance + np.cov(whole, rowvar=False)) / 2.0
    squared = difference @ np.linalg.pinv(pooled, rcond=len(pooled) * np.finfo(np.float64).eps) @ difference
    return float(np.sqrt(squared)) if squared >= 0.0 else float("nan")


def halve(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Halve a plane of even sides like MATLAB's ``imresize(x, 0.5)``: bicubic, widened against aliasing.

    At exactly one half every output pixel has the same eight weights, so it is one symmetric filter and a stride.
    """
    import cv2

    distance = np.abs(np.arange(8) - 3.5) / 2.0
    inner = 1.5 * distance**3 - 2.5 * distance**2 + 1.0
    outer = -0.5 * distance**3 + 2.5 * distance**2 - 4.0 * distance + 2.0
    taps = np.where(distance <= 1.0, inner, outer)
    taps /= taps.sum()
    full = cv2.sepFilter2D(plane, cv2.CV_64F, taps, taps, anchor=(3, 3), borderType=cv2.BORDER_REFLECT)
    return np.ascontiguousarray(full[::2, ::2])


def _normalise(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return mean-subtracted, contrast-normalised coefficients (equation 1), Gaussian 7x7 window of sigma 7/6.

    pyiqa holds the window in single precision, so it sums to 1 only within 1e-8; in flat regions, where variance is
    the small difference of large squares, that moves NIQE by a few parts in a thousand. The same window is used here.
    """
    import cv2

    taps = gaussian_taps(7, 7.0 / 6.0)
    window = np.outer(taps, taps).astype(np.float32).astype(np.float64)
    mean = cv2.filter2D(plane, cv2.CV_64F, window, borderType=cv2.BORDER_REPLICATE)
    square = cv2.filter2D(plane * plane, cv2.CV_64F, window, borderType=cv2.BORDER_REPLICATE)
    deviation = np.sqrt(np.abs(square - mean * mean) + np.finfo(np.float64).eps)
    return np.asarray((plane - mean) / (deviation + 1.0))


def _block_features(plane: NDArray[np.float64], side: int) -> NDArray[np.float64]:
    """Return 18 features [blocks, 18]: of the coefficients, and of their products with four neighbours."""
    rows, columns = plane.shape[0] // side, plane.shape[1] // side
    blocks = plane.reshape(rows, side, columns, side).transpose(0, 2, 1, 3).reshape(-1, side, side)
    alpha, left, right = _fit(blocks)
    features = [alpha, (left + right) / 2.0]
    for shift in ((0, 1), (1, 0), (1, 1), (1, -1)):
        alpha, left, right = _fit(blocks * np.roll(blocks, shift, axis=(1, 2)))
        mean = (right - left) * np.exp(_log_gamma(2.0 / alpha) - _log_gamma(1.0 / alpha))
        features += [alpha, mean, left, right]
    return np.stack(features, axis=1)


def _fit(
    blocks: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Fit asymmetric generalised Gaussians to [N, S, S] by moments: shape, left and right scale (equation 7).

    A block without values on one side of zero has no scale there (NaN), and the smallest shape, as in pyiqa.
    """
    values = blocks.reshape(len(blocks), -1)
    low, high = np.minimum(values, 0.0), np.maximum(values, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        left_square, right_square = np.einsum("ij,ij->i", low, low), np.einsum("ij,ij->i", high, high)
        left = np.sqrt(left_square / np.count_nonzero(low, axis=1))
        right = np.sqrt(right_square / np.count_nonzero(high, axis=1))
        size = values.shape[1]
        ratio = ((high.sum(axis=1) - low.sum(axis=1)) / size) ** 2 / ((left_square + right_square) / size)
        skew = left / right
        wanted = ratio * (skew**3 + 1.0) * (skew + 1.0) / (skew**2 + 1.0) ** 2
    shapes, ratios = _shape_table()
    upper = np.clip(np.searchsorted(ratios, wanted), 1, len(ratios) - 1)
    nearest = np.where(wanted - ratios[upper - 1] <= ratios[upper] - wanted, upper - 1, upper)
    alpha = shapes[np.where(np.isnan(wanted), 0, nearest)]
    scale = np.exp((_log_gamma(1.0 / alpha) - _log_gamma(3.0 / alpha)) / 2.0)
    return alpha, left * scale, right * scale


@cache
def _shape_table() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the shapes 0.2 to 10 in steps of 0.001 and their moment ratios, which grow with the shape."""
    shapes = (0.2 + 0.001 * np.arange(9801)).astype(np.float32).astype(np.float64)
    return shapes, np.exp(2.0 * _log_gamma(2.0 / shapes) - _log_gamma(1.0 / shapes) - _log_gamma(3.0 / shapes))


def _log_gamma(values: NDArray[np.float64]) -> NDArray[np.float64]:
    from scipy.special import gammaln

    return np.asarray(gammaln(values))
