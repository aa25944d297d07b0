"""Metrics of pyiqa by name, with weights found through ``ffhqref.weights.files`` and never fetched unasked.

pyiqa fetches what is missing without asking and unpickles with ``weights_only=False``. Where all files of a metric go
through two of its functions, these are replaced while it is built. The other metrics take backbones, and some of them
programs, from model hubs: they are built only with ``allow_remote_code=true``.

pyiqa is licensed PolyForm Noncommercial 1.0.0: an optional package, imported only when one of its metrics is named.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import io
import os
import re
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlparse

import numpy as np

from ffhqref.core.compat import ensure_torchvision
from ffhqref.core.errors import ConfigError, DependencyError, FfhqrefError, WeightsError, did_you_mean
from ffhqref.metrics.base import Metric, MetricBatch, MetricRuntime, MetricTraits, ground_truth
from ffhqref.weights import files as weights
from ffhqref.weights.fetch import obtain
from ffhqref.weights.tensors import opened, read_bytes, scan

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

_WHOLE_SETS = {"fid", "sfid", "fid_dinov2", "fid_mmd", "inception_score"}
"""Dataset-level metrics; see ffhqref.metrics.dataset_metrics."""

_PLAIN = ("musiq", "musiq-ava", "musiq-spaq", "musiq-paq2piq")
"""Metrics of the output alone, higher is better, that read the one registered weight file of that name."""

_HIGHER = {
    *_PLAIN, "clipiqa", "clipiqa+", "cnniqa", "dbcnn", "hyperiqa", "laion_aes", "liqe", "maniqa", "nima", "nrqm",
    "paq2piq", "qalign", "topiq_nr", "topiq_nr-face", "tres", "unique",
}  # fmt: skip
_LOWER = {"brisque", "ilniqe", "niqe", "pi", "piqe"}
_HIGHER_GT = {"ahiq", "cw_ssim", "fsim", "ms_ssim", "psnr", "psnry", "ssim", "ssimc", "topiq_fr", "vif", "vsi"}
_LOWER_GT = {"dists", "gmsd", "lpips", "lpips+", "lpips-vgg", "mad", "nlpd", "pieapp", "stlpips"}
"""Directions of common metrics, for machines without pyiqa; its own metadata is asked where it is installed."""


_CONTROLLED = {
    "arniqa", "arniqa-clive", "arniqa-csiq", "arniqa-flive", "arniqa-kadid", "arniqa-live", "arniqa-spaq", "arniqa-tid",
    "brisque", "brisque_matlab", "ckdn", "cnniqa", "cw_ssim", "dbcnn", "deepdc", "dists", "dmm", "fsim", "gmsd",
    "ilniqe", "lpips", "lpips+", "lpips-vgg", "lpips-vgg+", "mad", "metaiqa", "ms_ssim", "msswd", "musiq", "musiq-ava",
    "musiq-paq2piq", "musiq-spaq", "niqe", "niqe_matlab", "nlpd", "nrqm", "paq2piq", "pi", "pieapp", "piqe", "psnr",
    "psnry", "ssim", "ssimc", "stlpips", "stlpips-vgg", "topiq_iaa", "tres", "tres-flive", "unique", "vif", "vsi",
    "wadiqam_fr", "wadiqam_nr",
}  # fmt: skip
"""Metrics that read no file, or only files that `ffhqref.weights` gives them."""


class PyiqaMetric(Metric):
    """One of pyiqa's metrics, image by image, with a fixed seed.

    Args:
        name: pyiqa's name (``musiq``, ``topiq_nr-face``, ``clipiqa``).
        runtime: where weights lie and the network runs.
        allow_remote_code: build also what pyiqa loads by itself, from model hubs and with their programs.

    Raises:
        ConfigError: pyiqa has no such metric, it is a dataset-level one, or it loads files by itself.
        DependencyError: pyiqa, or a package the metric needs, is not installed.
        WeightsError: a weight file is absent; the line says which and where to put it.
    """

    higher_is_better = True  # of musiq; each instance has its own
    needs = frozenset[str]()
    role = "perception"

    def __init__(self, name: str, runtime: MetricRuntime | None = None, *, allow_remote_code: bool = False) -> None:
        self._runtime = runtime or MetricRuntime()
        self.device = self._runtime.device
        self._network: torch.nn.Module | None = None
        self.name = name
        version = _pyiqa_version()
        traits = self.describe({"name": name})
        self.higher_is_better, self.needs, self.role = traits.higher_is_better, traits.needs, traits.role
        if name not in _CONTROLLED and allow_remote_code is not True:
            raise ConfigError(
                f"pyiqa:{name} takes files, and may run programs, from model hubs that ffhqref cannot check; if you "
                f"trust them: +metric.NAME={{name: 'pyiqa:{name}', allow_remote_code: true}}"
            )
        if name in _PLAIN:  # importing pyiqa takes seconds: only when there is work to do
            file = obtain(name, folder=self._runtime.weights_dir, download=self._runtime.download)
            self.signature = f"pyiqa:{name}|pyiqa {version}|{file.signature}|rgb|v1"
            return
        network, files = _build(name, self._here())
        self._network = network if self._here() == self._runtime else None
        against = "|vs gt" if self.needs else ""
        self.signature = "|".join([f"pyiqa:{name}", f"pyiqa {version}", *files, "rgb"]) + f"{against}|v1"

    @classmethod
    def describe(cls, options: Mapping[str, object]) -> MetricTraits:
        """Return the traits from pyiqa's metadata; of common metrics also where pyiqa is not installed.

        Raises:
            ConfigError: unknown or dataset-level metric, or one whose direction only pyiqa knows, and it is absent.
        """
        name = str(options["name"])
        if name in _WHOLE_SETS:
            raise ConfigError(f"pyiqa:{name} is a dataset-level metric: use set_metric=[fid] or [kid]")
        if name not in _PLAIN and importlib.util.find_spec("pyiqa") is not None:
            configs = _pyiqa_configs()
            if name not in configs:
                raise ConfigError(f"pyiqa has no metric '{name}'.{did_you_mean(name, configs)}")
            higher = not configs[name].get("lower_better", False)
            return _traits(higher, configs[name]["metric_mode"] == "FR")
        for names, higher, full_reference in (
            (_HIGHER, True, False), (_LOWER, False, False), (_HIGHER_GT, True, True), (_LOWER_GT, False, True),
        ):  # fmt: skip
            if name in names:
                return _traits(higher, full_reference)
        raise ConfigError(f"pyiqa:{name}: unknown without pyiqa, which is not installed: pip install 'ffhqref[iqa]'")

    def _here(self) -> MetricRuntime:
        """Return where to inspect the network: the head of a cluster may have no GPU."""
        import torch

        usable = not self.device.startswith("cuda") or torch.cuda.is_available()
        return self._runtime if usable else replace(self._runtime, device="cpu")

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_network": None}

    def __call__(self, batch: MetricBatch) -> NDArray[np.float64]:
        """Return float64 [B]."""
        import torch

        if self._network is None:
            self._network, _ = _build(self.name, self._runtime)
        gt = ground_truth(batch) if self.needs else None
        values = []
        for index in range(len(batch)):
            images = [batch.output[index : index + 1]] + ([gt[index : index + 1]] if gt is not None else [])
            with torch.random.fork_rng(), torch.inference_mode():
                torch.manual_seed(0)  # some of them draw crops
                found = self._network(*(image.to(self._runtime.device) for image in images))
            values.append(float(found))
        return np.array(values, dtype=np.float64)


class MUSIQ(PyiqaMetric):
    """MUSIQ trained on KonIQ-10k, as ReF-LDM's ``scripts/eval.py`` uses it.

    Args:
        runtime: where weights lie and the network runs.
    """

    def __init__(self, runtime: MetricRuntime | None = None) -> None:
        super().__init__("musiq", runtime)

    @classmethod
    def describe(cls, options: Mapping[str, object]) -> MetricTraits:
        """Return the traits."""
        return super().describe({**options, "name": "musiq"})


def _traits(higher: bool, full_reference: bool) -> MetricTraits:
    needs = frozenset({"gt"} if full_reference else ())
    return MetricTraits(higher, needs, "fidelity" if full_reference else "perception")


def _pyiqa_version() -> str:
    try:
        return importlib.metadata.version("pyiqa")
    except importlib.metadata.PackageNotFoundError:
        raise DependencyError(
            "this metric needs the package pyiqa (PolyForm Noncommercial): pip install 'ffhqref[iqa]'"
        ) from None


def _pyiqa_configs() -> dict[str, Any]:
    _pyiqa_version()
    ensure_torchvision()
    with contextlib.redirect_stderr(io.StringIO()):
        from pyiqa.default_model_configs import DEFAULT_CONFIGS

    return dict(DEFAULT_CONFIGS)


def _build(name: str, runtime: MetricRuntime) -> tuple[Any, list[str]]:
    """Return pyiqa's metric and the signatures of the weight files it read."""
    ensure_torchvision()
    with contextlib.redirect_stderr(io.StringIO()):
        import pyiqa

    with _weights_from_registry(runtime, name in _CONTROLLED) as files, contextlib.redirect_stdout(io.StringIO()):
        try:
            return pyiqa.create_metric(name, device=runtime.device), files
        except FfhqrefError:
            raise
        except ModuleNotFoundError as error:
            raise DependencyError(f"pyiqa:{name} needs the package '{error.name}': pip install it") from None
        except Exception as error:  # noqa: BLE001 - a hundred networks fail in as many ways
            first = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
            if "Hub" in first:
                first = "its backbone is not in the cache of the Hugging Face hub (HF_HOME); allow downloads once"
            raise WeightsError(f"pyiqa:{name} cannot be built on this machine: {first}") from None


@contextlib.contextmanager
def _replaced(module: Any, name: str, value: object) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, before)


@dataclass(frozen=True)
class _Given:
    """The weight files that pyiqa asked for, and how it reads them: once, from the bytes that were hashed."""

    runtime: MetricRuntime
    checkpoints: dict[str, weights.Weights]
    """By the name under which pyiqa reads each."""
    signatures: list[str]
    reading: Callable[..., Any]
    """torch's own reader."""

    def provide(self, url: str, destination: str, *_: Any, **__: Any) -> None:
        """Stand in for a download."""
        item = weights.by_filename(re.sub(r"\?.*$", "", os.path.basename(urlparse(url).path)))  # noqa: PTH119
        if not item.sources:
            item = weights.WeightFile(item.name, item.filename, sources=(url,), folders=item.folders)
        found = obtain(item, folder=self.runtime.weights_dir, download=self.runtime.download)
        self.signatures.append(found.signature)
        place = Path(destination)
        place.parent.mkdir(parents=True, exist_ok=True)
        if found.path.suffix in {".pth", ".pt", ".ckpt"}:
            self.checkpoints[str(place)] = found
            place.touch()
        else:
            place.write_bytes(read_bytes(found))

    def load(self, file: Any, *_: Any, **__: Any) -> Any:
        """Stand in for `torch.load`: tensors alone, of a file that was provided.

        Raises:
            WeightsError: another file.
        """
        found = self.checkpoints.get(os.fspath(file)) if isinstance(file, (str, os.PathLike)) else None
        if found is None:
            raise WeightsError(f"pyiqa reads a checkpoint that it was not given: {file}")
        with opened(found) as name, _replaced(sys.modules["torch"], "load", self.reading):
            return scan(name, found)


@contextlib.contextmanager
def _weights_from_registry(runtime: MetricRuntime, controlled: bool) -> Iterator[list[str]]:
    """Let pyiqa and torch.hub find their files through `ffhqref.weights`, in place of their own downloads.

    While the metric is built their caches are an empty folder.

    Args:
        runtime: where weights lie, and whether they may be fetched.
        controlled: whether every checkpoint must be one that was provided.
    """
    import torch.hub
    from pyiqa.utils import download_util

    given = _Given(runtime, {}, [], torch.load)

    def load(file: Any, *arguments: Any, **named: Any) -> Any:
        provided = isinstance(file, (str, os.PathLike)) and os.fspath(file) in given.checkpoints
        return given.load(file) if controlled or provided else given.reading(file, *arguments, **named)

    with tempfile.TemporaryDirectory(prefix="ffhqref-pyiqa-") as folder, contextlib.ExitStack() as stack:
        stack.enter_context(_replaced(torch, "load", load))
        stack.enter_context(_replaced(torch.hub, "_hub_dir", folder))
        stack.enter_context(_replaced(torch.hub, "download_url_to_file", given.provide))
        stack.enter_context(_replaced(download_util, "download_url_to_file", given.provide))
        stack.enter_context(_replaced(download_util, "DEFAULT_CACHE_DIR", folder))
        if not runtime.download or weights.offline():
            hub = importlib.import_module("huggingface_hub.constants")
            stack.enter_context(_replaced(hub, "HF_HUB_OFFLINE", True))
            stack.enter_context(_replaced(socket, "getaddrinfo", _no_network))
            stack.enter_context(_replaced(socket, "create_connection", _no_network))
        yield given.signatures


def _no_network(host: object, *_: object, **__: object) -> NoReturn:
    raise OSError(f"it asks for {host}, and the network is used with download=true alone")
