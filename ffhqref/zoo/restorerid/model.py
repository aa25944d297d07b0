"""RestorerID put together: a reference to identity tokens, LQ image to latents and back to an image.

Facts: RestorerID, published code (commit 157e2883), scripts/Inference.py.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from ffhqref.core.errors import ConfigError, ImageError, WeightsError
from ffhqref.faces.crops import arcface_crop
from ffhqref.restorers.colour import adain_transfer, wavelet_transfer
from ffhqref.weights.tensors import load_tensors, read_bytes
from ffhqref.zoo.faceme.clip import clip_pixels, unit_length
from ffhqref.zoo.restorerid import names
from ffhqref.zoo.restorerid.structure import StructureEncoder
from ffhqref.zoo.restorerid.unet import Denoiser, identity_projection, own_name, vae
from ffhqref.zoo.shared.model_folder import assemble, moved, own_names

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ffhqref.weights.files import Weights
    from ffhqref.zoo.faceme.schedule import SamplerDraws
    from ffhqref.zoo.restorerid.config import RestorerIDConfig
    from ffhqref.zoo.restorerid.faces import ReferenceFace
    from ffhqref.zoo.restorerid.schedule import Schedule

_FLOOR = 32
"""Sides are cut down to multiples of this, as published, though the U-Net takes only every other one."""


@dataclass(frozen=True)
class Files:
    """Where RestorerID's parts lie."""

    checkpoint: Weights
    """``RestorerIDFull.ckpt``."""
    vocabulary: Weights
    """``vocab.json`` of CLIP's tokenizer."""
    merges: Weights
    """``merges.txt`` of the same."""
    adapter: Weights | None = None
    """``ip-adapter-faceid-plus_sd15.bin``, for a checkpoint without the identity projection."""
    image_encoder: Weights | None = None
    """CLIP ViT-H/14, for a checkpoint without it."""


class RestorerID:
    """All networks of RestorerID on one device.

    U-Net, structure encoder and image encoder work in ``dtype``. Everything else is float32, also where the published
    run has float16: VAE, identity projection, text, the latent between steps, the colours.

    Args:
        files: where the parts lie.
        config: widths.
        prompts: positive and negative, encoded once; the text encoder is not kept.
        device: of everything.
        dtype: of the three networks.

    Raises:
        WeightsError: a part is absent, damaged, or of other names or shapes.
    """

    def __init__(
        self,
        files: Files,
        config: RestorerIDConfig,
        prompts: tuple[str, str],
        *,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.device, self.dtype, self.config = device, dtype, config
        path = files.checkpoint.path
        tensors = load_tensors(files.checkpoint, wrappers=("state_dict",))
        parts = {name: names.part(tensors, name) for name in names.PREFIXES}
        del tensors
        _fill_in(parts, files)

        def built(make: Callable[[], Any], given: Mapping[str, Tensor], kind: torch.dtype = torch.float32) -> Any:
            return moved(assemble(make, given, path).requires_grad_(False), device, kind)

        self.positive, self.negative = self._encoded(parts.pop("text"), prompts, files)
        self.vae = built(lambda: vae(config.vae), names.vae_tensors(parts.pop("vae"), len(config.vae.ch_mult)))
        self.projection = built(
            lambda: identity_projection(config.adapter, config.vision.hidden_size),
            names.projection_tensors(parts.pop("projection")),
        )
        self.image_encoder = built(
            lambda: CLIPVisionModelWithProjection(CLIPVisionConfig(**vars(config.vision), **config.vision.FIXED)),
            parts.pop("image"),
            dtype,
        )
        self.structure = built(
            lambda: StructureEncoder(config.struct), names.structure_tensors(parts.pop("structure")), dtype
        )
        unet = names.unet_tensors(parts.pop("unet"), config.unet, path)
        self.unet = built(lambda: Denoiser(config), {own_name(name): value for name, value in unet.items()}, dtype)
        side = config.vision.image_size
        self.nobody = self.tokens(torch.zeros(1, config.adapter.id_dim), self.hidden(torch.zeros(1, 3, side, side)))
        """Identity tokens of the negative half: of no vector, and of zeros after CLIP's normalisation."""

    @torch.no_grad()
    def _encoded(self, tensors: Mapping[str, Tensor], prompts: tuple[str, str], files: Files) -> list[Tensor]:
        """Return the states [1, 77, C] of both prompts."""
        widths = self.config.text
        ends = {"bos_token_id": widths.vocab_size - 2, "eos_token_id": widths.vocab_size - 1}
        config = CLIPTextConfig(**vars(widths), **widths.FIXED, **ends)
        with torch.device("meta"):
            tensors = own_names(CLIPTextModel(config), tensors)
        encoder = moved(
            assemble(lambda: CLIPTextModel(config), tensors, files.checkpoint.path), self.device, torch.float32
        )
        found = torch.tensor(token_ids(files.vocabulary, files.merges, prompts, widths.max_position_embeddings))
        return [encoder(ids[None].to(self.device)).last_hidden_state for ids in found]

    def identity(self, picture: NDArray[np.uint8], face: ReferenceFace) -> Tensor:
        """Return the tokens of a reference, [1, n, C].

        Args:
            picture: uint8 RGB [H, W, 3].
            face: in it.

        Raises:
            ImageError: an ArcFace vector of zeros.
            ConfigError: an ArcFace vector of another length than the projection takes.
        """
        vector = torch.from_numpy(np.asarray(face.embedding, np.float32))[None]
        if vector.shape[1] != self.config.adapter.id_dim:
            raise ConfigError(
                f"RestorerID takes ArcFace vectors of {self.config.adapter.id_dim} channels, this ArcFace gives "
                f"{vector.shape[1]}: take buffalo_l's w600k_r50.onnx"
            )
        if not bool(vector.any()):
            raise ImageError("an ArcFace vector of zeros")
        return self.tokens(unit_length(vector), self.hidden(self.pixels(picture, face)))

    def pixels(self, picture: NDArray[np.uint8], face: ReferenceFace) -> Tensor:
        """Return the image encoder's input [1, 3, S, S]: the face in BGR, normalised as if it were RGB, as published.

        Args:
            picture: uint8 RGB [H, W, 3].
            face: in it.
        """
        side = self.config.vision.image_size
        return clip_pixels(bgr_crop(picture, face, side), side)[None]

    @torch.no_grad()
    def hidden(self, pixels: Tensor) -> Tensor:
        """Return the image encoder's states before its last layer, float32 [1, n, C], of normalised pixels."""
        given = pixels.to(self.device, self.dtype)
        states: Tensor = self.image_encoder(given, output_hidden_states=True).hidden_states[-2]
        return states.float()

    @torch.no_grad()
    def tokens(self, vector: Tensor, hidden: Tensor) -> Tensor:
        """Return identity tokens [1, n, C] of an ArcFace vector [1, d] of length 1 or 0, and of CLIP's states."""
        self.projection.clip_embeds = hidden[:, None]
        found: Tensor = self.projection(vector.to(self.device))
        return found

    @torch.no_grad()
    def latent(self, picture: Tensor, draw: Tensor) -> Tensor:
        """Return the latent of an LQ image, [1, 4, h, w].

        Args:
            picture: [1, 3, H, W] in −1..1.
            draw: standard normal, which sample of the posterior is taken.
        """
        posterior = self.vae.encode(picture.to(self.device)).latent_dist
        found: Tensor = (posterior.mean + posterior.std * draw.to(self.device)) * self.config.diffusion.scale_factor
        return found

    @torch.no_grad()
    def features(self, latent: Tensor, time: int) -> dict[int, Tensor]:
        """Return the structure features of an LQ image's latent at a time, by their width."""
        found: dict[int, Tensor] = self.structure(latent.to(self.dtype), time)
        return found

    @torch.no_grad()
    def predict(
        self, x: Tensor, time: int, identity: Tensor, features: dict[int, Tensor], scale: float, *, guided: bool
    ) -> Tensor:
        """Return the predicted noise, float32 [2, 4, h, w]: negative, positive; [1, 4, h, w] without guidance.

        Args:
            x: latent, [1, 4, h, w].
            time: of the networks.
            identity: tokens of the reference.
            features: of `features`.
            scale: weight of the identity in the cross-attention.
            guided: compute the negative half too.
        """
        text, faces = [self.positive], [identity]
        if guided:
            text, faces = [self.negative, *text], [self.nobody, *faces]
        states = (torch.cat(text).to(self.dtype), torch.cat(faces).to(self.dtype))
        noise: Tensor = self.unet(x.expand(len(text), -1, -1, -1).to(self.dtype), time, *states, features, scale)
        return noise.float()

    def sample(
        self,
        latent: Tensor,
        identity: Tensor,
        draws: SamplerDraws,
        schedule: Schedule,
        *,
        scale: float,
        guidance_scale: float,
    ) -> Tensor:
        """Return the denoised latent, float32 [1, 4, h, w]. It starts from noise: the LQ image is a condition only.

        Args:
            latent: of the LQ image.
            identity: tokens of the reference.
            draws: of the case.
            schedule: of as many steps.
            scale: weight of the identity in the cross-attention.
            guidance_scale: 1 switches guidance off.
        """
        x, guided = draws.start.to(self.device), guidance_scale != 1
        for draw, index in zip(draws.steps.to(self.device), reversed(range(len(draws.steps))), strict=True):
            time = schedule.times[index]
            noise = self.predict(x, time, identity, self.features(latent, time), scale, guided=guided)
            x, _ = schedule.step(index, x, combined(noise, guidance_scale), draw)
        return x

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """Return the image of a latent, float32 [1, 3, H, W], nominally −1..1, not clamped."""
        decoded: Tensor = self.vae.decode(latent / self.config.diffusion.scale_factor, return_dict=False)[0]
        return decoded


def combined(noise: Tensor, scale: float) -> Tensor:
    """Return the guided prediction [1, 4, h, w] of a pair [2, 4, h, w] (negative, positive), or of one row."""
    if len(noise) == 1:
        return noise
    negative, positive = noise.chunk(2)
    return negative + scale * (positive - negative)


def identity_scale(musiq: float) -> float:
    """Return the weight of the identity for the MUSIQ of an input: the worse it is, the larger.

    >>> identity_scale(9.5)
    1.0
    """
    return math.exp(float(np.float32(0.1) * (np.float32(9.5) - np.float32(musiq))))


def fitted(picture: NDArray[np.uint8], unit: int) -> NDArray[np.uint8]:
    """Return an LQ image, uint8 [H, W, 3], resized so that its sides are multiples of 32, as published (Lanczos).

    Raises:
        ImageError: the sides then are no multiples of the unit, which stops the published script.
    """
    from PIL import Image

    height, width = (side // _FLOOR * _FLOOR for side in picture.shape[:2])
    if height % unit or width % unit or not height or not width:
        raise ImageError(
            f"restorerid takes images whose sides, cut down to multiples of {_FLOOR}, are multiples of {unit}, not "
            f"{picture.shape[1]}x{picture.shape[0]}"
        )
    if picture.shape[:2] == (height, width):
        return picture
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))


def to_signed(picture: NDArray[np.uint8]) -> Tensor:
    """Return uint8 [H, W, 3] as float32 [1, 3, H, W] in −1..1."""
    values = 2.0 * (torch.from_numpy(picture.astype(np.float32)) / 255.0) - 1.0
    return values.permute(2, 0, 1)[None].contiguous()


def bgr_crop(picture: NDArray[np.uint8], face: ReferenceFace, side: int) -> NDArray[np.uint8]:
    """Return the face as the image encoder is shown it, uint8 **BGR** [side, side, 3].

    Args:
        picture: uint8 RGB [H, W, 3].
        face: in it.
        side: in pixels.
    """
    return arcface_crop(np.ascontiguousarray(picture[..., ::-1]), face.points, side)


COLOURS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "wavelet": wavelet_transfer,
    "adain": lambda picture, colours: 2 * adain_transfer((picture + 1) / 2, (colours + 1) / 2) - 1,
    "nofix": lambda picture, colours: picture,  # noqa: ARG005
}
"""Ways to take the colours of the LQ image over, both [1, 3, H, W] in −1..1, under their published names."""


def token_ids(vocabulary: Weights, merges: Weights, prompts: Sequence[str], length: int) -> list[list[int]]:
    """Return the token numbers of prompts, padded with the end token and cut to a length.

    Args:
        vocabulary: CLIP's ``vocab.json``.
        merges: CLIP's ``merges.txt``.
        prompts: texts.
        length: of each.
    """
    with tempfile.TemporaryDirectory() as folder:  # just these two: another file beside them would change results
        for name, file in (("vocab.json", vocabulary), ("merges.txt", merges)):
            (Path(folder) / name).write_bytes(read_bytes(file))
        tokenizer = CLIPTokenizer.from_pretrained(folder)
    made = tokenizer(list(prompts), padding="max_length", max_length=length, truncation=True)
    found: list[list[int]] = made["input_ids"]
    return found


def _fill_in(parts: dict[str, dict[str, Tensor]], files: Files) -> None:
    """Take the identity projection and the image encoder from their own files where the checkpoint has none.

    Raises:
        WeightsError: it has none, and no file was named.
    """
    if not parts["projection"]:
        adapter = _named(files.adapter, "adapter", "the identity projection", files)
        parts["projection"] = {
            name: value.float() for name, value in load_tensors(adapter, wrappers=("image_proj",)).items()
        }
    if not parts["image"]:
        encoder = _named(files.image_encoder, "image_encoder", "the image encoder", files)
        parts["image"] = {
            name: value.float()
            for name, value in load_tensors(encoder).items()
            if name.startswith(("vision_model.", "visual_projection.")) and not name.endswith(".position_ids")
        }


def _named(file: Weights | None, option: str, what: str, files: Files) -> Weights:
    if file is None:
        raise WeightsError(f"{files.checkpoint} holds no tensors of {what}: name their file with {option}=PATH")
    return file
