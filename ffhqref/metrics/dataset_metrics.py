"""Dataset-level metrics: FID and KID, distances between two sets of images in place of one number per case.

FID on few images is biased: over a test set of hundreds it lies far above that over 70,000. Every value therefore
carries its n, and a warning below `SMALL` images. FID against the test set's ground truth and FID against all of FFHQ
are different metrics.
"""

from __future__ import annotations

import importlib.util
import io
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.compat import ensure_torchvision
from ffhqref.core.errors import ConfigError, DependencyError, WeightsError
from ffhqref.core.parsing import parsing
from ffhqref.core.registry import Registry
from ffhqref.core.seeding import case_seed
from ffhqref.metrics.base import MetricRuntime
from ffhqref.weights import files as weights
from ffhqref.weights.fetch import obtain
from ffhqref.weights.tensors import opened, read_bytes, scan

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

Moments = tuple["NDArray[np.floating]", "NDArray[np.floating]"]
"""Mean [D] and covariance [D, D] of features."""

SMALL = 10_000
"""Images below which a value gets a warning (the number that FID's authors recommend at least)."""
SUBSETS, SUBSET_SIZE = 100, 1000
"""Subsets over which KID is averaged, and images of each (at most), as in clean-fid."""
_SIZE = 299


@dataclass(frozen=True)
class SetScore:
    """One dataset-level value."""

    value: float
    n: int
    """Images compared."""
    n_reference: int | None
    """Images on the other side; None: stored statistics that do not say."""
    warning: str | None
    """Why the value should not be compared with others, or None."""


class ImageFeatures(ABC):
    """What maps each image to the vector that dataset-level metrics compare. It must pickle."""

    signature: str
    """Network, hash of the weights and preprocessing."""
    device: str = "cpu"

    @abstractmethod
    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return float32 [N, D] from uint8 RGB images [H, W, 3]."""


class InceptionFeatures(ImageFeatures):
    """The 2048 features of FID's Inception-v3 (torch-fidelity) on images resized the "clean" way.

    G. Parmar and others, On Aliased Resizing and Surprising Subtleties in GAN Evaluation, CVPR 2022: each channel is
    resized to 299x299 in floating point with PIL's bicubic filter and clipped to 0..255, then (x - 128) / 128.

    Args:
        path: ``weights-inception-2015-12-05-6726825d.pth``; None: found through ``ffhqref.weights.files``.
        runtime: where weights lie and the network runs.

    Raises:
        WeightsError: the file is absent.
        DependencyError: torch-fidelity is not installed.
    """

    def __init__(self, path: str | Path | None = None, runtime: MetricRuntime | None = None) -> None:
        self._runtime = runtime or MetricRuntime()
        self.device = self._runtime.device
        if importlib.util.find_spec("torch_fidelity") is None:
            raise DependencyError("FID and KID need the package torch-fidelity: pip install 'ffhqref[fid]'")
        file = obtain("inception-fid", path=path, folder=self._runtime.weights_dir, download=self._runtime.download)
        self._path = file
        self._network: torch.nn.Module | None = None
        self.signature = f"inception-v3 2048|{file.signature}|clean bicubic 299|v1"

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_network": None}

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return float32 [N, 2048] from uint8 RGB images [H, W, 3]."""
        import torch

        if self._network is None:
            self._network = _inception(self._path).to(self._runtime.device)
        rows = []
        for image in images:
            values = torch.from_numpy((clean_resize(image) - 128.0) / 128.0)[None].to(self._runtime.device)
            with torch.inference_mode():
                rows.append(self._network(values).reshape(-1).cpu().numpy())
        return np.stack(rows).astype(np.float32) if rows else np.zeros((0, 2048), np.float32)


def clean_resize(image: NDArray[np.uint8], size: int = _SIZE) -> NDArray[np.float32]:
    """Return float32 [3, size, size] in 0..255: PIL's bicubic on each channel in floating point, clipped."""
    from PIL import Image

    planes = [
        np.asarray(Image.fromarray(plane.astype(np.float32)).resize((size, size), Image.Resampling.BICUBIC))
        for plane in image.transpose(2, 0, 1)
    ]
    made: NDArray[np.float32] = np.clip(np.stack(planes), 0.0, 255.0)
    return made


def _inception(file: weights.Weights) -> torch.nn.Module:
    """Return torch-fidelity's Inception-v3 up to the pooled features, without its own resizing."""
    ensure_torchvision()
    from torch.nn import Sequential
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    try:
        with opened(file) as path:
            scan(path, file)  # refuses code that would run when torch-fidelity unpickles the file
            network = FeatureExtractorInceptionV3("fid", ["2048"], feature_extractor_weights_path=str(path))
    except RuntimeError as error:
        raise WeightsError(f"{file} is no Inception-v3 of FID: {str(error).splitlines()[0]}") from None
    layers = [layer for name, layer in network.named_children() if name != "fc"]
    return Sequential(*layers).eval()


class DatasetMetric(ABC):
    """One number for a whole set of outputs.

    Derive from this class and set the class attributes; other packages register theirs through the entry point group
    ``ffhqref.dataset_metrics``. The constructor takes ``runtime``, ``seed`` and ``features``.

    Args:
        runtime: where weights lie and the network runs.
        seed: of what is drawn.
        features: another network than FID's Inception-v3.

    Raises:
        WeightsError: a weight file is absent.
        DependencyError: a package is not installed.
    """

    higher_is_better: bool = False
    """Direction. Set it on the class: it is read where the weights are absent, too."""
    needs: frozenset[str] = frozenset({"gt"})
    """``{"gt"}``: compared with the ground truth of the benchmark; empty: with something fixed."""
    role: str = "perception"
    signature: str
    """Everything the value depends on besides the images."""

    def __init__(
        self, runtime: MetricRuntime | None = None, seed: int = 0, features: ImageFeatures | None = None
    ) -> None:
        self.seed = seed
        self.features = features or InceptionFeatures(runtime=runtime)

    @abstractmethod
    def __call__(self, features: NDArray[np.float32], reference: NDArray[np.float32] | None) -> SetScore:
        """Return the value for features [N, D], N at least 2.

        Args:
            features: of the outputs.
            reference: of the ground truths [M, D], M at least 2; None: the metric does not need them.
        """


class FID(DatasetMetric):
    """FID against the ground truth of the benchmark."""

    def __init__(
        self, runtime: MetricRuntime | None = None, seed: int = 0, features: ImageFeatures | None = None
    ) -> None:
        super().__init__(runtime, seed, features)
        self.signature = f"fid|{self.features.signature}|vs gt|v1"

    def __call__(self, features: NDArray[np.float32], reference: NDArray[np.float32] | None) -> SetScore:
        """Return FID."""
        return fid(features, reference)


class FFHQFID(DatasetMetric):
    """FID against stored statistics of all of FFHQ, 70,000 images at 512 px, as ReF-LDM reports it."""

    needs = frozenset[str]()

    def __init__(
        self, runtime: MetricRuntime | None = None, seed: int = 0, features: ImageFeatures | None = None
    ) -> None:
        super().__init__(runtime, seed, features)
        runtime = runtime or MetricRuntime()
        self._statistics = stored_statistics("ffhq-fid-statistics", runtime=runtime)
        file = obtain("ffhq-fid-statistics", folder=runtime.weights_dir, download=runtime.download)
        self.signature = f"fid_ffhq|{self.features.signature}|vs ffhq 70k at 512 {file.signature}|v1"

    def __call__(self, features: NDArray[np.float32], reference: NDArray[np.float32] | None) -> SetScore:
        """Return FID."""
        del reference
        return fid(features, statistics=self._statistics)


class KID(DatasetMetric):
    """KID against the ground truth of the benchmark."""

    def __init__(
        self, runtime: MetricRuntime | None = None, seed: int = 0, features: ImageFeatures | None = None
    ) -> None:
        super().__init__(runtime, seed, features)
        self.signature = f"kid|{self.features.signature}|vs gt|subsets {SUBSETS}x{SUBSET_SIZE} seed {seed}|v1"

    def __call__(self, features: NDArray[np.float32], reference: NDArray[np.float32] | None) -> SetScore:
        """Return KID."""
        if reference is None:
            raise ConfigError("kid compares with the ground truth, and the benchmark has none")
        return kid(features, reference, seed=self.seed)


DATASET_METRICS: Registry[Callable[..., object]] = Registry(
    "dataset-level metric",
    {
        "fid": "ffhqref.metrics.dataset_metrics:FID",
        "fid_ffhq": "ffhqref.metrics.dataset_metrics:FFHQFID",
        "kid": "ffhqref.metrics.dataset_metrics:KID",
    },
    "ffhqref.dataset_metrics",
)
"""Dataset-level metrics by name; other packages add theirs through the entry point group
``ffhqref.dataset_metrics``."""


def dataset_metric_class(name: str) -> type[DatasetMetric]:
    """Return the class of a dataset-level metric; its direction is readable without weights.

    Raises:
        ConfigError: unknown name, or a plug-in that does not derive from `DatasetMetric`.
    """
    found = DATASET_METRICS.get(name)
    if isinstance(found, type) and issubclass(found, DatasetMetric):
        return found
    raise ConfigError(f"dataset-level metric '{name}': derive it from ffhqref.metrics.dataset_metrics.DatasetMetric")


def frechet_distance(first: Moments, second: Moments) -> float:
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


def moments(features: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean [D] and covariance [D, D] (n - 1) of features [N, D]."""
    values = np.asarray(features, np.float64)
    return values.mean(axis=0), np.atleast_2d(np.cov(values, rowvar=False))


MOST = 1 << 30
"""Bytes of stored statistics; those of 2048 features have .03 of it."""


def stored_statistics(name: str, *, runtime: MetricRuntime | None = None) -> Moments:
    """Return (mean, covariance) from an ``.npz`` of clean-fid's form: a registry name or a path.

    Raises:
        WeightsError: absent, or holds no ``mu`` and ``sigma``.
    """
    runtime = runtime or MetricRuntime()
    named = name in weights.registry()
    file = obtain(name if named else "ffhq-fid-statistics", path=None if named else name,
                           folder=runtime.weights_dir, download=runtime.download)  # fmt: skip
    with parsing(file.path, WeightsError, "expected FID statistics, mu [D] and sigma [D, D]"):
        data = read_bytes(file)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:  # a small one can hold more than there is memory
            if sum(item.file_size for item in archive.infolist()) > MOST:
                raise ValueError(f"more than {MOST / 2**30:g} GiB")
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            mean, covariance = np.asarray(stored["mu"], np.float64), np.asarray(stored["sigma"], np.float64)
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise ValueError(f"mu {mean.shape} and sigma {covariance.shape}")
        return mean, covariance


def fid(
    features: NDArray[np.floating],
    reference: NDArray[np.floating] | None = None,
    statistics: Moments | None = None,
) -> SetScore:
    """Return FID between features [N, D] and either reference features or stored statistics.

    Raises:
        ConfigError: neither or both were given, or fewer than two images.
    """
    if (reference is None) == (statistics is None):
        raise ConfigError("fid: give reference features or stored statistics, one of the two")
    if len(features) < 2 or (reference is not None and len(reference) < 2):
        raise ConfigError(f"fid needs at least two images on each side, got {len(features)}")
    other = moments(reference) if reference is not None else statistics
    assert other is not None
    count = None if reference is None else len(reference)
    return SetScore(frechet_distance(moments(features), other), len(features), count, _warning(len(features), count))


def kid(
    features: NDArray[np.floating],
    reference: NDArray[np.floating],
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
        raise ConfigError(f"kid needs at least two images on each side, got {len(features)}, {len(reference)}")
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
    return f"n={smallest}: dataset-level metrics of fewer than {SMALL} images are biased; compare only with the same n"
