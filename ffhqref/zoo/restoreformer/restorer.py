"""RestoreFormer and RestoreFormer++ with their released weights, on spandrel's network.

Wang et al., "RestoreFormer: High-Quality Blind Face Restoration From Undegraded Key-Value Pairs", CVPR 2022, and
"RestoreFormer++", TPAMI 2023. A vector-quantised auto-encoder whose decoder attends to itself with queries from the
degraded face. The second differs from the first in the number of heads (4, not 8) and in attending at 32 pixels as
well as at 16 in the decoder; spandrel knows only the first, whose modules serve both here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError
from ffhqref.core.images import SIZE
from ffhqref.restorers.base import RestorerInfo
from ffhqref.weights.files import find, load_tensors
from ffhqref.zoo.shared.aligned import AlignedRestorer, need_package
from ffhqref.zoo.shared.architecture import read_architecture
from ffhqref.zoo.shared.network import ready, signed, unsigned

if TYPE_CHECKING:
    import torch

_FIXED = {"in_channels": 3, "out_ch": 3, "double_z": False, "enable_mid": True}
_UNUSED = ("dropout", "fix_decoder", "fix_codebook", "fix_encoder")


@dataclass(frozen=True)
class RestoreFormerConfig:
    """Widths of a RestoreFormer, by the names of the published constructor. Defaults: the released one."""

    n_embed: int = 1024
    """Number of codes."""
    embed_dim: int = 256
    """Length of a code."""
    ch: int = 64
    """Width of the first level, a multiple of 32."""
    ch_mult: tuple[int, ...] = (1, 2, 2, 4, 4, 8)
    """Width of each level as a multiple of `ch`; each level but the last halves the side."""
    num_res_blocks: int = 2
    """Residual blocks a level in the encoder; the decoder has one more."""
    attn_resolutions: tuple[int, ...] = (16,)
    """Sides at which levels have attention; the middle block always has it."""
    resolution: int = 512
    """Side of the pictures in pixels."""
    z_channels: int = 256
    """Width of the latent before quantisation."""
    head_size: int = 8
    """Number of attention heads (not their width); a file does not show it."""
    ex_multi_scale_num: int = 0
    """0: RestoreFormer; 1: RestoreFormer++, whose decoder attends at twice the side too."""

    @property
    def decoder_attention(self) -> tuple[int, ...]:
        """Return the sides at which the decoder's levels have attention."""
        if not self.ex_multi_scale_num:
            return self.attn_resolutions
        return (self.attn_resolutions[0], self.attn_resolutions[-1] * 2**self.ex_multi_scale_num)

    def __post_init__(self) -> None:
        levels = len(self.ch_mult)
        sides = [self.resolution // 2**level for level in range(levels)]
        if not levels or self.resolution % 2 ** (levels - 1):
            raise ConfigError(f"{type(self).__name__}: resolution={self.resolution} is not halved {levels - 1} times")
        if not self.attn_resolutions:
            raise ConfigError(f"{type(self).__name__}: attn_resolutions is empty")
        attended = [mult for side, mult in zip(sides, self.ch_mult, strict=True) if side in self.decoder_attention]
        if self.ch % 32 or any(self.ch * mult % self.head_size for mult in (*attended, self.ch_mult[-1])):
            raise ConfigError(
                f"{type(self).__name__}: ch={self.ch} should be a multiple of 32, and head_size={self.head_size} "
                "divide the width of every level with attention"
            )


@dataclass(frozen=True)
class RestoreFormerPPConfig(RestoreFormerConfig):
    """Widths of a RestoreFormer++. Defaults: the released one."""

    head_size: int = 4
    ex_multi_scale_num: int = 1


class RestoreFormer(AlignedRestorer):
    """RestoreFormer on aligned faces, as the published ``inference.py --aligned`` runs it.

    Args:
        path: ``RestoreFormer.ckpt`` as the authors released it, ``RestoreFormer.pth`` as GFPGAN's authors released
            the same weights again, or a file of either layout; None: the first of the two that the weight registry
            finds.
        config: widths of another file: a `RestoreFormerConfig`, a mapping of its fields, or a JSON or YAML file
            with one.
        device: ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: an unknown or impossible width.
        DependencyError: spandrel is not installed.
        WeightsError: the file is missing, damaged, or not the published one.
    """

    info = RestorerInfo(
        name="restoreformer",
        summary="Vector-quantised auto-encoder, queries from the degraded face",
        licence="Apache-2.0",
        trained_on=("FFHQ",),
        paper="arXiv:2201.06374",
        weights=("restoreformer", "restoreformer-ckpt"),
        verified_against="outputs of the published code on random weights, small and full size: within 1e-4 relative",
    )
    _architecture: type[RestoreFormerConfig] = RestoreFormerConfig

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        config: RestoreFormerConfig | Mapping[str, Any] | str | Path | None = None,
        device: str = "auto",
    ) -> None:
        need_package(self.info.name, "spandrel", "zoo")
        self.config = read_architecture(self._architecture, config, fixed=_FIXED, unused=_UNUSED)
        self.side = self.config.resolution
        names = self.info.weights
        self._file = names[0] if path else next((name for name in names if find(name)), names[0])
        super().__init__({self._file: path}, device)
        if self.side != SIZE:
            self.info = dataclasses.replace(self.info, input_size=None)

    @cached_property
    def network(self) -> torch.nn.Module:
        """The network with its weights, in evaluation mode on the device."""
        file = self.files[self._file].path
        found = load_tensors(file, wrappers=("params_ema", "params", "state_dict"), prefix="vqvae.")
        # training checkpoints carry the networks of the losses along
        tensors = {name: tensor for name, tensor in found.items() if not name.startswith("loss.")}
        built: torch.nn.Module = build_network(self.config)
        return ready(built, tensors, file, self.device)

    def _restored(self, face: torch.Tensor, seed: int) -> torch.Tensor:  # noqa: ARG002
        return unsigned(run_network(self.network, signed(face.to(self.device))))


class RestoreFormerPP(RestoreFormer):
    """RestoreFormer++ on aligned faces, as the published ``inference.py --aligned`` runs it by default.

    Args:
        path: ``RestoreFormer++.ckpt`` or a file of the same layout; None: from the weight registry.
        config: widths of another file: a `RestoreFormerPPConfig`, a mapping of its fields, or a JSON or YAML file
            with one.
        device: ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: an unknown or impossible width.
        DependencyError: spandrel is not installed.
        WeightsError: the file is missing, damaged, or not the published one.
    """

    info = dataclasses.replace(
        RestoreFormer.info,
        name="restoreformer_pp",
        summary="RestoreFormer with attention at two scales",
        paper="arXiv:2308.07228",
        weights=("restoreformer-pp",),
    )
    _architecture = RestoreFormerPPConfig


def build_network(config: RestoreFormerConfig) -> Any:
    """Return spandrel's ``RestoreFormer`` with random weights, its decoder exchanged where the config asks for it."""
    from ffhqref.core.compat import ensure_torchvision

    ensure_torchvision()
    from spandrel.architectures.RestoreFormer import RestoreFormer as Network

    options = dataclasses.asdict(config)
    del options["ex_multi_scale_num"]
    network: Any = Network(**options)
    if config.ex_multi_scale_num:
        for name in ("n_embed", "embed_dim"):
            del options[name]
        options["attn_resolutions"] = config.decoder_attention
        network.decoder = type(network.decoder)(out_ch=3, **options)
    return network


def run_network(network: Any, faces: torch.Tensor) -> torch.Tensor:
    """Return the output of `build_network`'s network, both float32 [B, 3, H, W] in −1..1.

    spandrel's decoder takes the queries of a level from ``block_<level>_atten``, which its encoder fills for the
    last level only. At a higher level RestoreFormer++ takes the encoder's map before the downsampling.
    """
    quantised, _, _, maps = network.encode(faces)
    levels = [name for name in maps if name.startswith("block_") and not name.endswith("_atten")]
    picture: torch.Tensor = network.decode(quantised, {**{f"{name}_atten": maps[name] for name in levels}, **maps})
    return picture
