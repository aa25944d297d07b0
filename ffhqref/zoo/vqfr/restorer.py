"""The restorers `vqfr` (version 2) and `vqfr_v1`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ffhqref.core.errors import ConfigError
from ffhqref.core.images import SIZE
from ffhqref.restorers.base import RestorerInfo
from ffhqref.weights.tensors import load_tensors
from ffhqref.zoo.shared.aligned import AlignedRestorer
from ffhqref.zoo.shared.architecture import read_architecture
from ffhqref.zoo.shared.network import ready, signed, unsigned
from ffhqref.zoo.vqfr.config import VQFRConfig, VQFRv1Config

if TYPE_CHECKING:
    import torch

    from ffhqref.zoo.vqfr.network import VQFRv2
    from ffhqref.zoo.vqfr.network_v1 import VQFRv1

    M = TypeVar("M", bound=torch.nn.Module)

C = TypeVar("C", VQFRConfig, VQFRv1Config)

WRAPPERS = ("params_ema", "params")

INFO = RestorerInfo(
    name="vqfr",
    summary="Codebook of high-quality texture, weighed against a branch that keeps to the LQ image (version 2)",
    licence="Apache-2.0 with third-party notes",
    trained_on=("FFHQ",),
    paper="Gu et al., VQFR, ECCV 2022, arXiv 2205.06803",
    weights=("vqfr-v2",),
    verified_against="outputs of the published code on random weights of a reduced network, within 1e-5 relative",
)

INFO_V1 = replace(
    INFO,
    name="vqfr_v1",
    summary="Codebook of high-quality texture, warped onto the LQ image (version 1)",
    weights=("vqfr-v1",),
    verified_against="outputs of the published code on random weights of a reduced network, within 2e-5 relative",
)


class _VQFR(AlignedRestorer, Generic[C]):
    """What both versions share: one file, and an architecture that says the side."""

    def __init__(
        self, path: str | Path | None, kind: type[C], config: C | Mapping[str, Any] | str | Path | None, device: str
    ) -> None:
        (self._file,) = self.info.weights
        super().__init__({self._file: path}, device)
        self.config: C = read_architecture(kind, config)
        self.side = self.config.size
        self.info = replace(self.info, input_size=self.side if self.side == SIZE else None)

    def _loaded(self, network: M) -> M:
        path = self.files[self._file]
        return ready(network, load_tensors(path, wrappers=WRAPPERS), path, self.device)


class VQFR(_VQFR[VQFRConfig]):
    """VQFR version 2 as the published script runs it on aligned faces.

    Args:
        path: ``VQFR_v2.pth`` as released; None: from the weight registry.
        config: arguments of another architecture than the published one, as `VQFRConfig`, mapping, or JSON or YAML
            file.
        fidelity_ratio: 0 to 1, from best quality to best fidelity. 0 is the script's default (its README says 0.1).
        device: ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: the architecture is not one, or ``fidelity_ratio`` is not within 0..1.
        WeightsError: the file is missing, damaged, or of another architecture.
    """

    info = INFO

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        config: VQFRConfig | Mapping[str, Any] | str | Path | None = None,
        fidelity_ratio: float = 0.0,
        device: str = "auto",
    ) -> None:
        if not 0 <= fidelity_ratio <= 1:
            raise ConfigError(f"vqfr: fidelity_ratio must be within 0 to 1, not {fidelity_ratio}")
        super().__init__(path, VQFRConfig, config, device)
        self.fidelity_ratio = fidelity_ratio

    @cached_property
    def network(self) -> VQFRv2:
        """The network with its weights, loaded on first use.

        Raises:
            WeightsError: the file is damaged or does not fit the architecture.
        """
        from ffhqref.zoo.vqfr.network import VQFRv2

        return self._loaded(VQFRv2(self.config))

    def _restored(self, face: torch.Tensor, seed: int) -> torch.Tensor:  # noqa: ARG002 - it draws nothing
        return unsigned(self.network(signed(face.to(self.device)), self.fidelity_ratio))


class VQFRVersion1(_VQFR[VQFRv1Config]):
    """VQFR version 1, with the pre- and post-processing of `VQFR`. It has no fidelity ratio.

    Args:
        path: ``VQFR_v1-33a1fac5.pth`` as released; None: from the weight registry.
        config: arguments of another architecture than the published one, as `VQFRv1Config`, mapping, or JSON or
            YAML file.
        device: ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: the architecture is not one.
        WeightsError: the file is missing, damaged, or of another architecture.
    """

    info = INFO_V1

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        config: VQFRv1Config | Mapping[str, Any] | str | Path | None = None,
        device: str = "auto",
    ) -> None:
        super().__init__(path, VQFRv1Config, config, device)

    @cached_property
    def network(self) -> VQFRv1:
        """The network with its weights, loaded on first use.

        Raises:
            WeightsError: the file is damaged or does not fit the architecture.
        """
        from ffhqref.zoo.vqfr.network_v1 import VQFRv1

        return self._loaded(VQFRv1(self.config))

    def _restored(self, face: torch.Tensor, seed: int) -> torch.Tensor:  # noqa: ARG002 - it draws nothing
        return unsigned(self.network(signed(face.to(self.device))))
