"""OSDFace with its released weights on Stable Diffusion 2.1 (base).

Wang et al., "One-Step Diffusion Model for Face Restoration", CVPR 2025. Behaviour: the published infer.py with the
flags of test.sh (``--merge_lora``, single precision).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError, ImageError, did_you_mean
from ffhqref.core.images import SIZE
from ffhqref.restorers.base import RestorationBatch, RestorerInfo
from ffhqref.weights.tensors import holding
from ffhqref.zoo.osdface.config import PromptConfig
from ffhqref.zoo.shared.aligned import need_package, resized
from ffhqref.zoo.shared.architecture import read_architecture
from ffhqref.zoo.shared.model_folder import part_weights, small_files, weight_file
from ffhqref.zoo.shared.network import NetworkRestorer, unsigned

if TYPE_CHECKING:
    import torch

    from ffhqref.zoo.osdface.model import OSDFace

INFO = RestorerInfo(
    name="osdface",
    summary="One step of Stable Diffusion 2.1 with LoRA, prompted by codes of the LQ image (OSDFace)",
    uses_seed=True,
    licence="none stated (weights); Stable Diffusion 2.1: CreativeML Open RAIL++-M; the implementation is Apache-2.0",
    commercial_use=False,
    trained_on=("FFHQ", "FFHQR"),
    paper="Wang et al., OSDFace, CVPR 2025, arXiv 2411.17163",
    weights=("osdface", "osdface-embedding-change", "osdface-lora", "sd21-base"),
    verified_against="outputs of the published script (commit 0652227) on random weights and stored draws: codes "
    "equal, latents within 1e-4 relative, 8-bit values equal but for one level on 0.2 %; which layers the "
    "released LoRA changes was not seen",
)

POSTERIORS = ("sample", "mean")
_BASE = "sd21-base"
_SMALL = ("scheduler/scheduler_config.json", "unet/config.json", "vae/config.json")
"""Files of the base folder that results depend on, besides the weights."""


class OSDFaceRestorer(NetworkRestorer):
    """OSDFace as a restorer. Networks are loaded on the first call of `restore`.

    The published script draws the VAE's sample unseeded, in spite of its ``--seed``; here each case has its own draw,
    from its seed. Cases go one by one: the published choice of codes is right for a batch of one only. A square
    image is brought to 512 pixels, as published, and the result back to the input's size; another one keeps its size,
    where the published script cuts sides to multiples of 8.

    Args:
        path: ``associate_2.ckpt``, the prompt encoder; None: from the weight registry, like the other files.
        embedding_change: ``embedding_change_weights.pth``.
        lora: ``pytorch_lora_weights.safetensors``, the LoRA of the U-Net.
        base: folder of Stable Diffusion 2.1 (base) in the layout of diffusers.
        config: widths of the prompt encoder: a `PromptConfig`, a mapping of its fields, or a JSON or YAML file; None:
            the released ones.
        posterior: ``sample``, as published, or ``mean``, which leaves nothing to chance.
        timestep: of the one step.
        lora_scale: alpha over rank of the LoRA, which the published script is told; its defaults give 1.
        device: ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: an unknown setting or width.
        DependencyError: spandrel is not installed.
        WeightsError: a file is missing, damaged, or not the published one.
    """

    info = INFO
    quantization = "truncate"
    cache_ignored_options = ("path", "embedding_change", "lora", "base")

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        embedding_change: str | Path | None = None,
        lora: str | Path | None = None,
        base: str | Path | None = None,
        config: PromptConfig | Mapping[str, Any] | str | Path | None = None,
        posterior: str = "sample",
        timestep: int = 399,
        lora_scale: float = 1.0,
        device: str = "auto",
    ) -> None:
        need_package(INFO.name, "spandrel", "zoo")
        need_package(INFO.name, "diffusers", "diffusion")
        if posterior not in POSTERIORS:
            raise ConfigError(
                f"osdface: posterior={posterior!r}.{did_you_mean(posterior, POSTERIORS)} Known: sample, mean"
            )
        if not 0 <= timestep < 1000:
            raise ConfigError(f"osdface: timestep={timestep}, expected 0..999")
        self.config = read_architecture(PromptConfig, config)
        self.posterior = posterior
        self.timestep = timestep
        self.lora_scale = lora_scale
        unet = None if base is None else weight_file(Path(base) / "unet")
        own = {"osdface": path, "osdface-embedding-change": embedding_change, "osdface-lora": lora}
        super().__init__({**own, _BASE: unet}, device)
        self.base = self.files[_BASE].path.parent.parent
        self.files[f"{_BASE}/vae"] = part_weights(f"{_BASE}/vae", self.base / "vae")
        hashes = {name: weights.sha256 for name, weights in self.files.items()}
        self._small = small_files(_BASE, self.base, _SMALL)
        self.weights_sha256 = {**hashes, **{file.name: file.sha256 for file in self._small}}
        self.info = dataclasses.replace(
            INFO,
            uses_seed=posterior == "sample",
            input_size=SIZE if self.config.resolution == SIZE else None,
        )

    @cached_property
    def model(self) -> OSDFace:
        """The networks.

        Raises:
            WeightsError: a part is damaged, or of other names or shapes.
        """
        from ffhqref.zoo.osdface.model import Files, OSDFace

        prompt, change, lora = (self.files[name] for name in INFO.weights[:3])
        with holding([*self.files.values(), *self._small]):
            return OSDFace(
                Files(prompt, change, lora, self.base),
                self.config,
                time=self.timestep,
                lora_scale=self.lora_scale,
                device=self.device,
            )

    def restored(self, lq: torch.Tensor, draw: torch.Tensor | None) -> torch.Tensor:
        """Return what the published script writes: float32 [1, 3, h, w] in 0..1 on the CPU, before the cut to 8 bit.

        Args:
            lq: [1, 3, H, W] in 0..1.
            draw: standard normal, of the latent's shape; None: the mean of the posterior.
        """
        return unsigned(self.model.restore(lq, draw).decoded).cpu()

    def draw(self, seed: int, height: int, width: int) -> torch.Tensor | None:
        """Return the draw of a case with that seed and an image of that size; None where nothing is drawn."""
        if self.posterior != "sample":
            return None
        import torch

        if height == width:
            height = width = self.config.resolution
        vae = self.model.vae.config
        unit = 2 ** (len(vae.block_out_channels) - 1)
        shape = (1, vae.latent_channels, height // unit, width // unit)
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    def restore(self, batch: RestorationBatch) -> torch.Tensor:
        """Return float32 [B, 3, H, W] in 0..1 RGB on the CPU; see `base.Restorer`.

        Raises:
            ImageError: an image too small for a latent.
        """
        import torch

        height, width = batch.lq.shape[-2:]
        if min(height, width) < 8:
            raise ImageError(f"osdface takes images of at least 8 pixels, not {width}x{height}")
        made = [
            self.restored(lq, self.draw(seed, height, width))
            for lq, seed in zip(batch.lq.split(1), batch.seeds, strict=True)
        ]
        return resized(torch.cat(made), (height, width)) if made else torch.zeros_like(batch.lq)
