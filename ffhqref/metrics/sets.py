"""FID and KID: distances between whole sets of pictures, in place of one number a case.

FID on few pictures is biased: the mean over 857 pictures lies far above that over 70,000 (protocols.md 8.4). Every
value therefore carries its n, and a warning below `SMALL` pictures. FID against the test set's ground truth and FID
against all of FFHQ are different metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.core.errors import ConfigError, WeightsError
from ffhqref.core.seeding import case_seed
from ffhqref.metrics.base import Runtime
from ffhqref.weights import files as weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

SMALL = 10_000
"""Pictures below which a set distance gets a warning (the number FID's authors recommend at least)."""
SUBSETS, SUBSET_SIZE = 100, 1000
"""Subsets that KID's mean is taken over, and pictures of each (at most), as in clean-fid."""
_SIDE = 299


@dataclass(frozen=True)
class SetScore:
    """One set distance."""

    value: float
    n: int
    """Pictures compared."""
    n_reference: int | None
    """Pictures on the other side; None: stored statistics that do not say."""
    warning: str | None
    """Why the value should not be compared with others, or None."""


class InceptionFeatures:
    """The 2048 features of FID's Inception-v3 on pictures resized the "clean" way.

    G. Parmar and others, On Aliased Resizing and Surprising Subtleties in GAN Evaluation, CVPR 2022: each channel is
    resized to 299x299 in floating point with PIL's bicubic filter and clipped to 0..255, then (x - 128) / 128.

    Args:
        path: ``pt_inception-2015-12-05-6726825d.pth``; None: found through ``ffhqref.weights.files``.
        runtime: where weights lie and the network runs.

    Raises:
        WeightsError: the file is absent.
        DependencyError: pyiqa, whose Inception-v3 is used, is not installed.
    """

    def __init__(self, path: str | Path | None = None, runtime: Runtime | None = None) -> None:
        from ffhqref.metrics.iqa import _pyiqa_configs

        self._runtime = runtime or Runtime()
        self.device = self._runtime.device
        _pyiqa_configs()
        file = weights.require(
            "inception-fid", path=path, folder=self._runtime.weights_dir, download=self._runtime.download
        )
        self._path = file.path
        self._network: Any = None
        self.signature = f"inception-v3 2048|{file.signature}|clean bicubic 299|v1"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_network": None}

    def __call__(self, pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return float32 [N, 2048] from uint8 RGB pictures [H, W, 3]."""
        import torch

        if self._network is None:
            self._network = _inception(self._path).to(self._runtime.device)
        rows = []
        for picture in pictures:
            values = torch.from_numpy((clean_resize(picture) - 128.0) / 128.0)[None].to(self._runtime.device)
            with torch.inference_mode():
                rows.append(self._network(values, False, False)[0].reshape(-1).cpu().numpy())
        return np.stack(rows).astype(np.float32) if rows else np.zeros((0, 2048), np.float32)


def clean_resize(picture: NDArray[np.uint8], side: int = _SIDE) -> NDArray[np.float32]:
    """Return float32 [3, side, side] in 0..255: PIL's bicubic on each channel in floating point, clipped."""
    from PIL import Image

    planes = [
        np.asarray(Image.fromarray(plane.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC))
        for plane in picture.transpose(2, 0, 1)
    ]
    return np.clip(np.stack(planes), 0.0, 255.0)


def _inception(path: Path) -> Any:
    import warnings
    from unittest import mock

    from pyiqa.archs import inception

    tensors = weights.load_tensors(path)
    with (
        mock.patch.object(inception, "load_pretrained_network", lambda net, *_, **__: _fill(net, tensors, path)),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", UserWarning)  # torchvision on the way in which pyiqa asks for no weights
        network = inception.InceptionV3(output_blocks=[3], resize_input=False, normalize_input=False)
    return network.eval()


def _fill(network: Any, tensors: dict[str, Any], path: Path) -> None:
    weights.load_into(network, tensors, path)


def frechet_distance(first: tuple[NDArray[Any], NDArray[Any]], second: tuple[NDArray[Any], NDArray[Any]]) -> float:
    """Return the Fréchet distance of two Gaussians, each (mean [D], covariance [D, D]).

    The trace of the root of C1 C2 is the sum of the roots of its eigenvalues, which are real and not negative; this
    needs no matrix root and no offset when a covariance is singular.
    """
    (mean_a, covariance_a), (mean_b, covariance_b) = (
        (np.asarray(mean, np.float64), np.asarray(covariance, np.float64)) for mean, covariance in (first, second)
    )
    if mean_a.shape != mean_b.shape:
        raise ConfigError(f"fid: {mean_a.size} features against {mean_b.size}; both sides need the same network")
    values, vectors = np.linalg.eigh(covariance_a)
    root = vectors * np.sqrt(np.clip(values, 0.0, None))
    product = np.linalg.eigvalsh(root.T @ covariance_b @ root)
    crossed = float(np.sqrt(np.clip(product, 0.0, None)).sum())
    difference = mean_a - mean_b
    return float(difference @ difference + np.trace(covariance_a) + np.trace(covariance_b) - 2.0 * crossed)


def moments(features: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean [D] and covariance [D, D] (n - 1) of features [N, D]."""
    values = np.asarray(features, np.float64)
    return values.mean(axis=0), np.atleast_2d(np.cov(values, rowvar=False))


def stored_statistics(name: str, *, runtime: Runtime | None = None) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return (mean, covariance) from an ``.npz`` of clean-fid's form: a registry name or a path.

    Raises:
        WeightsError: absent, or holds no ``mu`` and ``sigma``.
    """
    runtime = runtime or Runtime()
    named = name in weights.registry()
    file = weights.require(name if named else "ffhq-fid-statistics", path=None if named else name,
                           folder=runtime.weights_dir, download=runtime.download)  # fmt: skip
    try:
        with np.load(file.path, allow_pickle=False) as stored:
            return stored["mu"], stored["sigma"]
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(f"no FID statistics (mu, sigma) in {file.path}: {error}") from None


def fid(
    features: NDArray[Any],
    reference: NDArray[Any] | None = None,
    statistics: tuple[NDArray[Any], NDArray[Any]] | None = None,
) -> SetScore:
    """Return FID between features [N, D] and either reference features or stored statistics.

    Raises:
        ConfigError: neither or both were given, or fewer than two pictures.
    """
    if (reference is None) == (statistics is None):
        raise ConfigError("fid: give reference features or stored statistics, one of the two")
    if len(features) < 2 or (reference is not None and len(reference) < 2):
        raise ConfigError(f"fid needs at least two pictures on each side, got {len(features)}")
    other = moments(reference) if reference is not None else statistics
    assert other is not None
    count = None if reference is None else len(reference)
    return SetScore(frechet_distance(moments(features), other), len(features), count, _warning(len(features), count))


def kid(
    features: NDArray[Any],
    reference: NDArray[Any],
    *,
    subsets: int = SUBSETS,
    subset_size: int = SUBSET_SIZE,
    seed: int = 0,
) -> SetScore:
    """Return KID: unbiased squared MMD with the kernel (x·y / D + 1)^3, mean over subsets drawn by seed.

    M. Bińkowski and others, Demystifying MMD GANs, ICLR 2018; subsets as in clean-fid. With subsets as large as both
    sets there is one subset, and nothing is drawn.
    """
    if min(len(features), len(reference)) < 2:
        raise ConfigError(f"kid needs at least two pictures on each side, got {len(features)}, {len(reference)}")
    x, y = np.asarray(features, np.float64), np.asarray(reference, np.float64)
    size = min(len(x), len(y), subset_size)
    if size == len(x) == len(y):
        value = _mmd(x, y)
    else:
        generator = np.random.default_rng(case_seed(seed, "kid"))
        drawn = [
            _mmd(x[generator.choice(len(x), size, replace=False)], y[generator.choice(len(y), size, replace=False)])
            for _ in range(subsets)
        ]
        value = float(np.mean(drawn))
    return SetScore(value, len(x), len(y), _warning(len(x), len(y)))


def _mmd(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    size, width = x.shape
    within = (x @ x.T / width + 1.0) ** 3 + (y @ y.T / width + 1.0) ** 3
    between = (x @ y.T / width + 1.0) ** 3
    return float((within.sum() - np.trace(within)) / (size * (size - 1)) - 2.0 * between.mean())


def _warning(n: int, reference: int | None) -> str | None:
    smallest = n if reference is None else min(n, reference)
    if smallest >= SMALL:
        return None
    return f"n={smallest}: set distances of fewer than {SMALL} pictures are biased; compare only with the same n"
