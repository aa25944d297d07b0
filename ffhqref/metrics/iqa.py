"""Any metric of pyiqa by name, with its weights found through ``ffhqref.weights.files`` and never fetched unasked.

pyiqa is licensed PolyForm Noncommercial 1.0.0: it is an optional package, imported only when a metric of it is named.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock
from urllib.parse import urlparse

import numpy as np

from ffhqref.core.compat import ensure_torchvision
from ffhqref.core.errors import ConfigError, DependencyError, FfhqrefError, WeightsError, did_you_mean
from ffhqref.metrics.base import MetricBatch, Runtime, ground_truth
from ffhqref.weights import files as weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SETS = {"fid", "sfid", "fid_dinov2", "fid_mmd", "inception_score"}
"""Metrics of whole sets; see ffhqref.metrics.sets."""

_PLAIN = {name: (name, True) for name in ("musiq", "musiq-ava", "musiq-spaq", "musiq-paq2piq")}
"""Metrics that look at the output alone and read one registered weight file: (its name, higher is better)."""


class PyiqaMetric:
    """One of pyiqa's metrics, picture by picture, with a fixed seed.

    Args:
        name: pyiqa's name (``musiq``, ``topiq_nr-face``, ``clipiqa``).
        runtime: where weights lie and the network runs.

    Raises:
        ConfigError: pyiqa knows no such metric, or it is one of sets.
        DependencyError: pyiqa, or a package the metric needs, is not installed.
        WeightsError: a weight file is absent; the line says which and where to put it.
    """

    def __init__(self, name: str, runtime: Runtime | None = None) -> None:
        self._runtime = runtime or Runtime()
        self.device = self._runtime.device
        self._network: Any = None
        version = _pyiqa_version()
        if name in _PLAIN:  # importing pyiqa takes seconds: not before there is work to do
            item, self.higher_is_better = _PLAIN[name]
            self.name, self.needs = name, frozenset[str]()
            file = weights.require(item, folder=self._runtime.weights_dir, download=self._runtime.download)
            self.signature = f"pyiqa:{name}|pyiqa {version}|{file.signature}|rgb|v1"
            return
        configs = _pyiqa_configs()
        if name not in configs:
            raise ConfigError(f"pyiqa has no metric '{name}'.{did_you_mean(name, configs)}")
        if name in _SETS:
            raise ConfigError(f"pyiqa:{name} measures whole sets of pictures; use the set metrics fid or kid")
        self.name = name
        self.higher_is_better = not configs[name].get("lower_better", False)
        self.needs = frozenset[str]({"gt"} if configs[name]["metric_mode"] == "FR" else ())
        network, files = _build(name, self._here())
        self._network = network if self._here() == self._runtime else None
        against = "|vs gt" if self.needs else ""
        self.signature = "|".join([f"pyiqa:{name}", f"pyiqa {version}", *files, "rgb"]) + f"{against}|v1"

    def _here(self) -> Runtime:
        """Return what serves to look at the network where it is not run: a cluster's head may have no GPU."""
        import torch

        usable = not self.device.startswith("cuda") or torch.cuda.is_available()
        return self._runtime if usable else replace(self._runtime, device="cpu")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_network": None}

    def __call__(self, batch: MetricBatch) -> NDArray[np.float64]:
        """Return float64 [B]."""
        import torch

        if self._network is None:
            self._network, _ = _build(self.name, self._runtime)
        gt = ground_truth(batch) if self.needs else None
        values = []
        for index in range(len(batch)):
            pictures = [batch.output[index : index + 1]] + ([gt[index : index + 1]] if gt is not None else [])
            with torch.random.fork_rng(), torch.inference_mode():
                torch.manual_seed(0)  # some of them draw crops
                found = self._network(*(picture.to(self._runtime.device) for picture in pictures))
            values.append(float(found))
        return np.array(values, dtype=np.float64)


def musiq(runtime: Runtime | None = None) -> PyiqaMetric:
    """Return MUSIQ trained on KonIQ-10k, as ReF-LDM's ``scripts/eval.py`` uses it (protocols.md 3.1)."""
    return PyiqaMetric("musiq", runtime)


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


def _build(name: str, runtime: Runtime) -> tuple[Any, list[str]]:
    """Return pyiqa's metric and the signatures of the weight files it read."""
    ensure_torchvision()
    with contextlib.redirect_stderr(io.StringIO()):
        import pyiqa

    with _weights_from_registry(runtime) as files, contextlib.redirect_stdout(io.StringIO()):
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
def _weights_from_registry(runtime: Runtime) -> Iterator[list[str]]:
    """Let pyiqa and torch.hub find their files through `ffhqref.weights.files`, in place of their own downloads.

    They fetch what is missing without asking, wait long when there is no network, and unpickle it with
    ``weights_only=False``. So their caches are, for as long as the metric is built, an empty folder, into which each
    file asked for is linked after it was found and shown to hold nothing but tensors.
    """
    import torch.hub
    from pyiqa.utils import download_util

    files: list[str] = []

    def provide(url: str, destination: str, *_: Any, **__: Any) -> None:
        item = weights.by_filename(re.sub(r"\?.*$", "", os.path.basename(urlparse(url).path)))  # noqa: PTH119
        if not item.sources:
            item = weights.WeightFile(item.name, item.filename, sources=(url,), folders=item.folders)
        found = weights.require(item, folder=runtime.weights_dir, download=runtime.download)
        if found.path.suffix in {".pth", ".pt", ".ckpt"}:
            weights.load_tensors(found.path)  # refuses what would run code when pyiqa unpickles it
        files.append(found.signature)
        Path(destination).parent.mkdir(parents=True, exist_ok=True)
        Path(destination).symlink_to(found.path.resolve())

    with tempfile.TemporaryDirectory(prefix="ffhqref-pyiqa-") as folder, contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch.hub, "_hub_dir", folder))
        stack.enter_context(mock.patch.object(torch.hub, "download_url_to_file", provide))
        stack.enter_context(mock.patch.object(download_util, "download_url_to_file", provide))
        stack.enter_context(mock.patch.object(download_util, "DEFAULT_CACHE_DIR", folder))
        if not runtime.download or weights.offline():
            hub = importlib.import_module("huggingface_hub.constants")
            stack.enter_context(mock.patch.object(hub, "HF_HUB_OFFLINE", True))
        yield files
