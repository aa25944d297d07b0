"""FaceMe put together: references to identity tokens, LQ image to latents and back to an image.

Facts: FaceMe, published code (commit 8973f65), infer.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ffhqref.core.errors import ConfigError, ImageError
from ffhqref.restorers.colour import wavelet_transfer
from ffhqref.weights.tensors import load_tensors
from ffhqref.zoo.faceme.clip import IdentityEncoder, clip_pixels, cut_face, load_identity_encoder, unit_length
from ffhqref.zoo.faceme.lora import merge_lora
from ffhqref.zoo.faceme.mix import Mix, load_mix
from ffhqref.zoo.faceme.prompt import TextEncoders, TextStates, insert_identity, time_ids
from ffhqref.zoo.faceme.schedule import SamplerDraws, Schedule
from ffhqref.zoo.shared.model_folder import load_controlnet, load_scheduler, load_unet, load_vae, moved

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ffhqref.zoo.faceme.config import FaceMeConfig
    from ffhqref.zoo.faceme.faces import ReferenceFace


@dataclass(frozen=True)
class Files:
    """Where FaceMe's parts lie."""

    base: Path
    """Folder of the SDXL model."""
    controlnet: Path
    """Folder of the ControlNet."""
    mix: Path
    """``mix.safetensors`` or its folder."""
    photomaker: Path
    """``photomaker-v1.bin``."""


@dataclass(frozen=True)
class Prompts:
    """What the text encoders are told."""

    positive: str
    negative: str
    key_word: str
    """Its token in the positive prompt gives way to the identity tokens."""


@dataclass(frozen=True)
class Conditions:
    """Both halves of a guided step: negative first, then positive."""

    states: torch.Tensor
    """[2, 77, C] in the type of the U-Net."""
    added: dict[str, torch.Tensor]
    """``text_embeds`` [2, P] and ``time_ids`` [2, 6]."""
    control: torch.Tensor
    """[2, 3, H, W] in −1..1: the LQ image, twice."""


class FaceMe:
    """All networks of FaceMe on one device.

    The U-Net and the ControlNet work in ``dtype``. Everything else is float32, also where the published run has
    float16: VAE, identity networks, the latent between steps.

    Args:
        files: where the parts lie.
        config: widths of the parts without a config of their own.
        prompts: encoded once; the text encoders are not kept.
        lora: merge PhotoMaker's LoRA into the U-Net.
        device: of everything.
        dtype: of U-Net and ControlNet.

    Raises:
        ConfigError: the key word does not stand in the prompt once.
        WeightsError: a part is absent, damaged, or of other names or shapes.
    """

    def __init__(
        self,
        files: Files,
        config: FaceMeConfig,
        prompts: Prompts,
        *,
        lora: bool,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.device = device
        self.dtype = dtype
        self.mix: Mix = load_mix(files.mix, config.mix).to(device)
        self.id_encoder: IdentityEncoder = load_identity_encoder(files.photomaker, config.id_encoder).to(device)
        self.scheduler = load_scheduler(files.base)
        self.positive, self.negative, self.position = _encoded(files.base, prompts, device)
        self.vae = moved(load_vae(files.base), device, torch.float32)
        self.reduction: int = 2 ** (len(self.vae.config.block_out_channels) - 1)
        """Side of an image in sides of its latent: 8."""
        unet = load_unet(files.base)
        if lora:
            merge_lora(unet, load_tensors(files.photomaker, wrappers=("lora_weights",)), files.photomaker)
        self.unet = moved(unet, device, dtype)
        self.controlnet = moved(load_controlnet(files.controlnet), device, dtype)

    @torch.no_grad()
    def identity_tokens(self, pictures: Sequence[NDArray[np.uint8]], faces: Sequence[ReferenceFace]) -> torch.Tensor:
        """Return one token for each reference, float32 [n, C].

        Args:
            pictures: uint8 RGB [H, W, 3] each.
            faces: the face of each.

        Raises:
            ImageError: an ArcFace vector of zeros, or a box without pixels.
            ConfigError: ArcFace vectors of another length than the Mix network takes.
        """
        side = self.id_encoder.config.image_size
        crops = [clip_pixels(cut_face(item, face.box), side) for item, face in zip(pictures, faces, strict=True)]
        vectors = torch.from_numpy(np.stack([face.embedding for face in faces]).astype(np.float32))
        if vectors.shape[1] != self.mix.config.id_dim:
            raise ConfigError(
                f"FaceMe's mix network takes ArcFace vectors of {self.mix.config.id_dim} channels, "
                f"this ArcFace gives {vectors.shape[1]}: take antelopev2's glintr100.onnx"
            )
        if not bool(vectors.any(dim=1).all()):
            raise ImageError("an ArcFace vector of zeros")
        clip = self.id_encoder(torch.stack(crops).to(self.device))
        tokens: torch.Tensor = self.mix(clip, unit_length(vectors).to(self.device))
        return tokens

    def conditions(self, control: torch.Tensor, identity: torch.Tensor) -> Conditions:
        """Return what U-Net and ControlNet are told besides latent and time.

        Args:
            control: the LQ image, [1, 3, H, W] in −1..1.
            identity: [n, C], one token for each reference.
        """
        positive = insert_identity(self.positive.states, self.position, identity[None])
        pooled = torch.cat([self.negative.pooled, self.positive.pooled])
        return Conditions(
            states=torch.cat([self.negative.states, positive]).to(self.dtype),
            added={
                "text_embeds": pooled.to(self.dtype),
                "time_ids": time_ids(*control.shape[2:]).expand(2, -1).to(self.device, self.dtype),
            },
            control=control.expand(2, -1, -1, -1).to(self.device, self.dtype),
        )

    @torch.no_grad()
    def start(self, control: torch.Tensor, draws: SamplerDraws) -> torch.Tensor:
        """Return the noised latent that sampling starts from, float32 [1, 4, H/8, W/8].

        Args:
            control: the LQ image, [1, 3, H, W] in −1..1.
            draws: of the case.
        """
        posterior = self.vae.encode(control.to(self.device)).latent_dist
        latent = (posterior.mean + posterior.std * draws.posterior.to(self.device)) * self.vae.config.scaling_factor
        return Schedule(self.scheduler, len(draws.steps)).start(latent, draws.start.to(self.device))

    @torch.no_grad()
    def predict(self, x: torch.Tensor, t: int, given: Conditions) -> torch.Tensor:
        """Return both predictions of the U-Net, float32 [2, 4, h, w]: negative, positive.

        Args:
            x: latent, [1, 4, h, w].
            t: time.
            given: the conditions.
        """
        twice = x.expand(2, -1, -1, -1).to(self.dtype)
        down, middle = self.controlnet(
            twice,
            t,
            encoder_hidden_states=given.states,
            controlnet_cond=given.control,
            added_cond_kwargs=given.added,
            return_dict=False,
        )
        (predicted,) = self.unet(
            twice,
            t,
            encoder_hidden_states=given.states,
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            added_cond_kwargs=given.added,
            return_dict=False,
        )
        both: torch.Tensor = predicted.float()
        return both

    def sample(
        self, control: torch.Tensor, identity: torch.Tensor, draws: SamplerDraws, guidance_scale: float = 5.0
    ) -> torch.Tensor:
        """Return the denoised latent, float32 [1, 4, H/8, W/8].

        Args:
            control: the LQ image, [1, 3, H, W] in −1..1.
            identity: [n, C], one token for each reference.
            draws: of the case; their number of steps is the number of steps.
            guidance_scale: 1 switches guidance off.
        """
        schedule = Schedule(self.scheduler, len(draws.steps))
        given = self.conditions(control, identity)
        x = self.start(control, draws)
        noises = draws.steps.to(self.device)
        for index, t in enumerate(schedule.timesteps):
            x = schedule.step(index, x, guided(self.predict(x, t, given), guidance_scale), noises[index])
        return x

    @torch.no_grad()
    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Return the image of a latent, float32 [1, 3, H, W], nominally −1..1, not clamped."""
        decoded: torch.Tensor = self.vae.decode(latent / self.vae.config.scaling_factor, return_dict=False)[0]
        return decoded


def guided(predicted: torch.Tensor, scale: float) -> torch.Tensor:
    """Return the guided prediction [1, 4, h, w] of the pair [2, 4, h, w] (negative, positive)."""
    negative, positive = predicted.chunk(2)
    return negative + scale * (positive - negative)


def finish(decoded: torch.Tensor, control: torch.Tensor | None) -> NDArray[np.uint8]:
    """Return the image as published code writes it, uint8 RGB [H, W, 3].

    It goes through 8 bit twice: rounded, back to −1..1, colours corrected, then cut off. Without the correction
    the way there and back can lower a value by one level.

    Args:
        decoded: of `FaceMe.decode`, [1, 3, H, W].
        control: the LQ image whose colours are taken, [1, 3, H, W] in −1..1; None: no correction.
    """
    unit = (decoded / 2 + 0.5).clamp(0, 1)[0].permute(1, 2, 0).float().cpu().numpy()
    levels = (unit * 255).round().astype(np.uint8)
    values = torch.from_numpy(levels / 255.0 * 2.0 - 1.0).permute(2, 0, 1)[None]  # float64
    if control is not None:
        values = wavelet_transfer(values.float(), control.cpu().float())
    written = (values[0].permute(1, 2, 0) * 127.5 + 127.5).numpy()
    return np.asarray(written.clip(0, 255).astype(np.uint8))


def _encoded(base: Path, prompts: Prompts, device: str) -> tuple[TextStates, TextStates, int]:
    encoders = TextEncoders(base, device)
    position = encoders.position(prompts.positive, prompts.key_word)
    return encoders.encode(prompts.positive), encoders.encode(prompts.negative), position
