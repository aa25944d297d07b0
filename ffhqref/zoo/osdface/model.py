"""OSDFace put together: LQ image to prompt and latent, one step of the U-Net, and back to an image.

Facts: OSDFace, published code (commit 0652227), infer.py with the flags of test.sh.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn import functional as F

from ffhqref.core.compat import ensure_torchvision
from ffhqref.core.errors import WeightsError
from ffhqref.weights.tensors import load_tensors
from ffhqref.zoo.osdface.lora import merge_lora
from ffhqref.zoo.shared.model_folder import assemble, load_unet, load_vae, moved, read_json
from ffhqref.zoo.shared.network import signed

if TYPE_CHECKING:
    from ffhqref.weights.files import Weights
    from ffhqref.zoo.osdface.config import PromptConfig

_PREFIX = "vqvae_LQ."
"""The part of the association checkpoint that is used; its decoder and the networks beside it are not."""
_PARTS = ("encoder.", "quantize.embedding.", "quant_conv.")


@dataclass(frozen=True)
class Files:
    """Where OSDFace's parts lie."""

    prompt: Weights
    """``associate_2.ckpt``."""
    embedding_change: Weights
    """``embedding_change_weights.pth``."""
    lora: Weights
    """``pytorch_lora_weights.safetensors``."""
    base: Path
    """Folder of Stable Diffusion 2.1 (base)."""


@dataclass(frozen=True)
class Prompt:
    """What takes the place of a text."""

    features: torch.Tensor
    """[1, e, s, s]: of the encoder, before the quantisation."""
    indices: torch.Tensor
    """int64 [n]: the chosen codes, −1 for an empty row."""
    tokens: torch.Tensor
    """[1, n, e]: their vectors, zeros for an empty row."""
    states: torch.Tensor
    """[1, n, C]: what the U-Net attends to."""


@dataclass(frozen=True)
class Pass:
    """All stages of one image."""

    image: torch.Tensor
    """[1, 3, H, W] in −1..1, as the VAE takes it."""
    prompt: Prompt
    latent: torch.Tensor
    """[1, 4, H/8, W/8]: the scaled sample of the posterior."""
    predicted: torch.Tensor
    """The U-Net's output."""
    denoised: torch.Tensor
    """The latent without the predicted noise, still scaled."""
    decoded: torch.Tensor
    """[1, 3, 8·(H/8), 8·(W/8)], nominally −1..1, not clamped."""


class PromptEncoder(nn.Module):
    """Encoder and codebook, on spandrel's RestoreFormer, whose encoder is the same. Names are the published ones."""

    def __init__(self, config: PromptConfig) -> None:
        super().__init__()
        ensure_torchvision()
        from spandrel.architectures.RestoreFormer import RestoreFormer

        whole: Any = RestoreFormer(
            n_embed=config.n_embed,
            embed_dim=config.embed_dim,
            ch=config.ch,
            ch_mult=config.ch_mult,
            num_res_blocks=config.num_res_blocks,
            attn_resolutions=config.attn_resolutions,
            resolution=config.resolution,
            z_channels=config.z_channels,
            head_size=config.head_size,
        )
        self.encoder = whole.encoder
        self.quantize = whole.quantize
        self.quant_conv = whole.quant_conv

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Return the features [B, e, s, s] of images [B, 3, S, S]."""
        return cast("torch.Tensor", self.quant_conv(self.encoder(image)["out"]))


class EmbeddingChange(nn.Module):
    """From codes to the width of the U-Net's cross-attention, row by row."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(length, length // 2, 1)
        self.conv2 = nn.Conv1d(length // 2, width, 1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Return [B, n, width] of tokens [B, n, length]."""
        made: torch.Tensor = F.silu(self.conv2(F.silu(self.conv1(tokens.transpose(1, 2)))))
        return made.transpose(1, 2)


def chosen_codes(features: torch.Tensor, codebook: torch.Tensor, count: int) -> torch.Tensor:
    """Return the codes of an image that lie nearest to its features, int64 [count], each once; −1 where they run out.

    Args:
        features: [1, e, s, s].
        codebook: [N, e].
        count: length of the prompt.
    """
    rows = features[0].flatten(1).T
    distances = (rows**2).sum(1, keepdim=True) + (codebook**2).sum(1) - 2 * rows @ codebook.T
    nearest, codes = distances.min(dim=1)
    ordered = codes[nearest.sort(stable=True).indices]
    once = list(dict.fromkeys(ordered.tolist()))[:count]
    return torch.tensor(once + [-1] * (count - len(once)), device=features.device)


def kept_signal(base: Path, time: int) -> torch.Tensor:
    """Return ᾱ of a time, float64 from the float32 product, by a base folder's scheduler settings.

    Raises:
        WeightsError: absent, or another kind of schedule.
    """
    path = base / "scheduler" / "scheduler_config.json"
    settings: dict[str, Any] = read_json(path)
    if settings.get("beta_schedule") != "scaled_linear" or settings.get("trained_betas") is not None:
        raise WeightsError(f"{path}: only beta_schedule scaled_linear is known, as Stable Diffusion 2.1 has it")
    start, end, steps = settings["beta_start"], settings["beta_end"], settings["num_train_timesteps"]
    betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float32) ** 2
    return (1 - betas).cumprod(0)[time].double()


class OSDFace:
    """All networks of OSDFace on one device, in single precision as published.

    Args:
        files: where the parts lie.
        config: widths of the prompt encoder.
        time: of the one step.
        lora_scale: alpha over rank.
        device: of everything.

    Raises:
        WeightsError: a part is absent, damaged, or of other names or shapes.
    """

    def __init__(self, files: Files, config: PromptConfig, *, time: int, lora_scale: float, device: str) -> None:
        self.config = config
        self.device = device
        self.time = time
        self.kept = kept_signal(files.base, time)
        self.prompt_encoder: Any = _on(
            device, assemble(lambda: PromptEncoder(config), _codes(files.prompt), files.prompt)
        )
        self.vae = _on(device, load_vae(files.base))
        unet: Any = load_unet(files.base)
        width = unet.config.cross_attention_dim
        merge_lora(unet, load_tensors(files.lora), files.lora, lora_scale)
        self.unet = _on(device, unet)
        change = load_tensors(files.embedding_change)
        self.embedding_change = _on(
            device, assemble(lambda: EmbeddingChange(config.embed_dim, width), change, files.embedding_change)
        )

    def entrance(self, lq: torch.Tensor) -> torch.Tensor:
        """Return an image [1, 3, H, W] of 0..1 in −1..1; a square one is first brought to the network's size."""
        image = signed(lq.to(self.device))
        side = self.config.resolution
        if image.shape[-1] != image.shape[-2] or image.shape[-1] == side:
            return image
        return F.interpolate(image, size=(side, side), mode="bilinear", align_corners=True)

    def prompt(self, image: torch.Tensor) -> Prompt:
        """Return the prompt of an image [1, 3, H, W] in −1..1."""
        features = self.prompt_encoder(self.prompt_image(image))
        codebook = self.prompt_encoder.quantize.embedding.weight
        indices = chosen_codes(features, codebook, self.config.n_min)
        tokens = codebook[indices.clamp(min=0)] * (indices >= 0)[:, None]
        return Prompt(features, indices, tokens[None], self.embedding_change(tokens[None]))

    def prompt_image(self, image: torch.Tensor) -> torch.Tensor:
        """Return what the prompt encoder sees: the whole image in a square, in −3..1.

        The published code takes −1..1 for 0..1 here; the released weights were trained that way.
        """
        side = self.config.resolution
        return (F.interpolate(image, size=(side, side), mode="bilinear", align_corners=False) - 0.5) / 0.5

    def latent(self, image: torch.Tensor, draw: torch.Tensor | None) -> torch.Tensor:
        """Return the scaled latent [1, 4, H/8, W/8] of an image.

        Args:
            image: [1, 3, H, W] in −1..1.
            draw: standard normal, of the latent's shape; None: the mean of the posterior.
        """
        posterior = self.vae.encode(image).latent_dist
        sample = posterior.mean if draw is None else posterior.mean + posterior.std * draw.to(self.device)
        return cast("torch.Tensor", sample * self.vae.config.scaling_factor)

    def denoised(self, latent: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
        """Return the latent without the predicted noise, by way of double precision on the CPU."""
        made = (latent.cpu().double() - (1 - self.kept).sqrt() * predicted.cpu().double()) / self.kept.sqrt()
        return made.float().to(self.device)

    @torch.no_grad()
    def restore(self, lq: torch.Tensor, draw: torch.Tensor | None) -> Pass:
        """Return all stages of one image.

        Args:
            lq: [1, 3, H, W] in 0..1.
            draw: see `latent`.
        """
        image = self.entrance(lq)
        prompt = self.prompt(image)
        latent = self.latent(image, draw)
        (predicted,) = self.unet(latent, self.time, encoder_hidden_states=prompt.states, return_dict=False)
        denoised = self.denoised(latent, predicted)
        (decoded,) = self.vae.decode(denoised / self.vae.config.scaling_factor, return_dict=False)
        return Pass(image, prompt, latent, predicted, denoised, decoded)


def _codes(file: Weights) -> dict[str, torch.Tensor]:
    """Return the tensors of the prompt encoder; the checkpoint of a training holds others beside them."""
    named = {
        name.removeprefix(_PREFIX): value
        for name, value in load_tensors(file, wrappers=("state_dict",)).items()
        if name.startswith(_PREFIX)
    }
    return {name: value for name, value in named.items() if name.startswith(_PARTS)}


def _on(device: str, network: nn.Module) -> Any:
    return moved(network, device, torch.float32)
