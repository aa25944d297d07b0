"""The restorer `instantrestore`: the published script, with draws of each case's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import ConfigError, did_you_mean
from ffhqref.restorers.base import RestorationBatch, RestorerInfo
from ffhqref.weights.tensors import holding
from ffhqref.zoo.instantrestore.config import FREEU, PROMPT, REFERENCE_TIMESTEP, TIMESTEP, Behaviour
from ffhqref.zoo.shared.aligned import resized
from ffhqref.zoo.shared.model_folder import small_files, weight_file
from ffhqref.zoo.shared.network import NetworkRestorer

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from ffhqref.zoo.instantrestore.model import Draws, InstantRestore

VARIANTS = {
    "final": "instantrestore",
    "base": "instantrestore-base",
    "adain": "instantrestore-adain",
    "landmarks": "instantrestore-landmarks",
}
"""Released checkpoints, by what sets them apart, and their names in the weight registry."""

INFO = RestorerInfo(
    name="instantrestore",
    summary="One step of SD-Turbo with LoRA, whose decoder attends to the references' keys and values",
    min_references=1,
    max_references=4,
    input_size=512,
    uses_seed=True,
    licence="none stated (weights: all rights reserved; SD-Turbo: Stability AI, non-commercial research); the "
    "implementation is Apache-2.0",
    commercial_use=False,
    trained_on=("not stated by its authors", "LAION"),
    paper="Zhang et al., InstantRestore, SIGGRAPH 2025, arXiv 2412.06753",
    weights=("instantrestore", "sd-turbo", "sd-vae-ft-mse"),
    verified_against="outputs of the published script (commit 735217a) on random weights in float32 and stored draws: "
    "all within 1e-4 relative, 8-bit values equal but for one level on 0.1 %; its half precision not",
)

_SMALL = (
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
)
"""Files of SD-Turbo's folder that results depend on, besides the text encoder's weights."""

_UNIT = 8
"""A latent has an eighth of its image's side."""


class InstantRestoreRestorer(NetworkRestorer):
    """InstantRestore as a restorer. Networks are loaded on the first call of `restore`.

    The published script sets no seed, so that its numbers cannot be made again. Here each case draws from its own seed
    what the script would draw after setting it. Kept as published: up blocks that attend to the references alone,
    fewer than four references used as they are, 8-bit values cut off instead of rounded. Not kept: the script stops
    where an image is not 512 pixels wide or a ground truth is missing. Images are resized to `size` as there, and the
    result back.

    Args:
        path: the checkpoint; None: that of `variant`, from the weights folder.
        base: folder of SD-Turbo in the layout of diffusers; None: from the weights folder.
        vae: folder with the ``config.json`` of sd-vae-ft-mse; None: from the weights folder.
        variant: ``final`` (AdaIN and landmark supervision), ``base`` (neither), ``adain`` or ``landmarks``.
        size: side of the images that the networks work on, a multiple of 8.
        timestep: time that the input is noised to; the script fixes 249, training drew 249, 499 and 749.
        reference_timestep: time that the references are noised to.
        prompt: the fixed one.
        freeu: FreeU's four numbers; None: off.
        use_adain: give the references' values the input's statistics; None: as the checkpoint says.
        train_input: attend to the input's own keys and values too; None: as the checkpoint says.
        max_references: the first so many of a case are used; None: all. Trained with four.
        noise_device: where noise is drawn: ``cpu`` is the same on every machine.
        dtype: what the networks compute in, by autocast: ``float32``, ``float16`` (as published) or ``bfloat16``;
            ``auto`` is float16 on CUDA, float32 elsewhere. Weights, noise and the last steps stay float32.
        device: ``auto`` takes CUDA, then MPS, then the CPU.

    Raises:
        ConfigError: an unknown variant or setting.
        WeightsError: a file is missing, damaged, or not the published one.
    """

    info = INFO
    cache_ignored_options = ("path", "base", "vae", "variant")
    quantization = "truncate"

    def __init__(
        self,
        path: str | Path | None = None,
        base: str | Path | None = None,
        vae: str | Path | None = None,
        *,
        variant: str = "final",
        size: int = 512,
        timestep: int = TIMESTEP,
        reference_timestep: int = REFERENCE_TIMESTEP,
        prompt: str = PROMPT,
        freeu: Mapping[str, float] | None = FREEU,
        use_adain: bool | None = None,
        train_input: bool | None = None,
        max_references: int | None = 4,
        noise_device: str = "cpu",
        dtype: str = "auto",
        device: str = "auto",
    ) -> None:
        if variant not in VARIANTS:
            raise ConfigError(
                f"instantrestore: unknown variant '{variant}'.{did_you_mean(variant, VARIANTS)} Known: "
                f"{', '.join(VARIANTS)}"
            )
        if dtype not in ("auto", "float32", "bfloat16", "float16"):
            raise ConfigError(f"instantrestore: dtype must be auto, float32, bfloat16 or float16, not '{dtype}'")
        if size < _UNIT or size % _UNIT:
            raise ConfigError(f"instantrestore: size must be a multiple of {_UNIT}, not {size}")
        if freeu is not None and freeu.keys() != FREEU.keys():
            raise ConfigError(f"instantrestore: freeu needs {', '.join(FREEU)}, or is null, not {dict(freeu)}")
        if max_references is not None and max_references < 1:
            raise ConfigError(f"instantrestore: max_references must be at least 1, or null, not {max_references}")
        self._checkpoint = VARIANTS[variant]
        super().__init__(
            {
                self._checkpoint: path,
                "sd-turbo": None if base is None else weight_file(Path(base) / "text_encoder", "model"),
                "sd-vae-ft-mse": None if vae is None else Path(vae) / "config.json",
            },
            device,
        )
        self._base = self.files["sd-turbo"].path.parent.parent
        self._small = small_files("sd-turbo", self._base, _SMALL)
        self.weights_sha256 = {**self.weights_sha256, **{file.name: file.sha256 for file in self._small}}
        self.size = size
        self.noise_device = noise_device
        self.behaviour = Behaviour(
            prompt, timestep, reference_timestep, None if freeu is None else dict(freeu), use_adain, train_input
        )
        self._dtype = dtype
        self._model: InstantRestore | None = None
        self.info = dataclasses.replace(
            INFO,
            max_references=max_references,
            input_size=INFO.input_size if size == INFO.input_size else None,
            weights=tuple(self.files),
        )

    @property
    def model(self) -> InstantRestore:
        """The networks, loaded on first use.

        Raises:
            ConfigError: a time that the schedule does not have.
            WeightsError: a part is damaged, or of other names or shapes.
        """
        if self._model is None:
            import torch

            from ffhqref.zoo.instantrestore.loading import load_networks
            from ffhqref.zoo.instantrestore.model import InstantRestore

            dtype = self._dtype
            if dtype == "auto":
                dtype = "float16" if self.device.startswith("cuda") else "float32"
            vae = self.files["sd-vae-ft-mse"].path.parent
            with holding([*self.files.values(), *self._small]):
                networks = load_networks(self.files[self._checkpoint], self._base, vae, self.device)
            autocast = None if dtype == "float32" else getattr(torch, dtype)
            self._model = InstantRestore(networks, self.behaviour, device=self.device, autocast=autocast)
        return self._model

    def draws(self, seed: int, references: int) -> Draws:
        """Return the randomness of a case with that seed and so many references."""
        from ffhqref.zoo.instantrestore.model import Draws

        side = self.size // self.model.reduction
        shape = (self.model.vae.config.latent_channels, side, side)
        return Draws.of_seed(seed, references, shape, self.noise_device)

    def restore(self, batch: RestorationBatch) -> torch.Tensor:
        """Return float32 [B, 3, H, W] in 0..1 RGB on the CPU; see `base.Restorer`."""
        import torch

        from ffhqref.core.images import to_uint8

        made = []
        # one by one: numbers of references differ, and each case must be the same in every batch
        for lq, references, seed in zip(batch.lq.split(1), batch.references, batch.seeds, strict=True):
            used = pixels(list(to_uint8(references[: self.info.max_references])), self.size)
            decoded = self.model.restore(pixels(list(to_uint8(lq)), self.size), used, self.draws(seed, len(used)))
            made.append((decoded.clamp(-1, 1) * 0.5 + 0.5).clamp(0, 1).cpu())
        return resized(torch.cat(made), batch.lq.shape[-2:]) if made else torch.zeros_like(batch.lq)


def pixels(pictures: list[NDArray[np.uint8]], size: int) -> torch.Tensor:
    """Return images as the networks take them, float32 [N, 3, size, size] in −1..1.

    PIL's Lanczos filter on 8 bit makes the shorter side ``size``, then the centre is cut out.

    Args:
        pictures: uint8 RGB [H, W, 3] each.
        size: side in pixels.
    """
    import torch

    cut = np.stack([_square(picture, size) for picture in pictures])
    values = torch.from_numpy(cut).permute(0, 3, 1, 2).contiguous().float() / 255
    return (values - 0.5) / 0.5


def _square(picture: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    from PIL import Image

    height, width = picture.shape[:2]
    short, long = sorted((height, width))
    if short != size:
        other = int(size * long / short)
        new = (size, other) if width <= height else (other, size)
        picture = np.asarray(Image.fromarray(picture).resize(new, Image.Resampling.LANCZOS))
        height, width = picture.shape[:2]
    top, left = round((height - size) / 2), round((width - size) / 2)  # halves to even, as published
    return picture[top : top + size, left : left + size]
