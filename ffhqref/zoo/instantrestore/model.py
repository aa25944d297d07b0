"""InstantRestore put together: images to latents, references to keys and values, one step, and back to an image.

Facts: InstantRestore, published code (commit 735217a), face_replace/inference/test.py.
"""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ffhqref.core.errors import ConfigError
from ffhqref.zoo.instantrestore.attention import KeysValues, Recording, Shared, shared_layers

if TYPE_CHECKING:
    from torch import Tensor

    from ffhqref.zoo.instantrestore.config import Behaviour
    from ffhqref.zoo.instantrestore.loading import Networks


@dataclass(frozen=True)
class Draws:
    """All randomness of one case: standard normal, float32, [1 or n, 4, h, w]."""

    input_posterior: Tensor
    """Which sample of the VAE's posterior of the input is taken."""
    reference_posterior: Tensor
    reference_noise: Tensor
    input_noise: Tensor

    @classmethod
    def of_seed(cls, seed: int, references: int, latent: tuple[int, int, int], device: str = "cpu") -> Draws:
        """Return what the published script draws for one image after ``torch.manual_seed(seed)``.

        Args:
            seed: of the case.
            references: number of them.
            latent: shape of a latent, [4, h, w].
            device: where they are drawn; the same seed gives others on CUDA than on the CPU.
        """
        generator = torch.Generator(device).manual_seed(seed)

        def draw(count: int) -> Tensor:
            return torch.randn((count, *latent), generator=generator, device=device)

        input_posterior, reference_posterior, reference_noise = draw(1), draw(references), draw(references)
        draw(references)  # the published scheduler draws a noise that nothing uses
        return cls(input_posterior, reference_posterior, reference_noise, draw(1))


class InstantRestore:
    """The networks of InstantRestore at work.

    Args:
        networks: loaded; their attention is set up anew.
        behaviour: besides the weights.
        device: where the networks are.
        autocast: lower precision that they compute in, by torch's autocast; None: float32.

    Raises:
        ConfigError: a time or a kind of prediction that the schedule does not have.
    """

    def __init__(
        self, networks: Networks, behaviour: Behaviour, *, device: str = "cpu", autocast: torch.dtype | None = None
    ) -> None:
        self.device = device
        self._autocast = autocast
        self.behaviour = behaviour
        schedule = networks.scheduler.config
        if schedule.prediction_type != "epsilon":
            raise ConfigError(
                f"instantrestore: prediction_type {schedule.prediction_type!r} is not built, only 'epsilon'"
            )
        self._kept: Tensor = networks.scheduler.alphas_cumprod
        self._clip = float(schedule.clip_sample_range) if schedule.clip_sample else None
        for time in (behaviour.timestep, behaviour.reference_timestep):
            if not 0 <= time < len(self._kept):
                raise ConfigError(f"instantrestore: a time must be from 0 to {len(self._kept) - 1}, not {time}")
        self.tokens, self.states = _encoded(networks, behaviour.prompt, device)
        self.unet, self.vae = networks.unet, networks.vae
        self.original_unet, self.original_vae = networks.original_unet, networks.original_vae
        self.reduction: int = 2 ** (len(self.vae.config.block_out_channels) - 1)
        """Side of an image in sides of its latent: 8."""
        self._references: KeysValues = {}
        settings = networks.settings
        adain = settings.use_adain if behaviour.use_adain is None else behaviour.use_adain
        own = settings.train_input if behaviour.train_input is None else behaviour.train_input
        for unet in (self.unet, self.original_unet):
            if behaviour.freeu is not None:
                unet.enable_freeu(**behaviour.freeu)
            else:
                unet.disable_freeu()
        for index, attn in enumerate(shared_layers(self.unet)):
            attn.set_processor(Shared(self._references, index, adain=adain, own=own))
        for index, attn in enumerate(shared_layers(self.original_unet)):
            attn.set_processor(Recording(self._references, index))

    def encode(self, vae: Any, pixels: Tensor, draws: Tensor) -> Tensor:
        """Return scaled latents [B, 4, h, w], drawn from the posterior.

        Args:
            vae: `vae` for the input, `original_vae` for references.
            pixels: [B, 3, H, W] in −1..1.
            draws: [B, 4, h, w].
        """
        # one by one: activations at full resolution are the most memory of all
        made = []
        for image, draw in zip(pixels.split(1), draws.split(1), strict=True):
            with self._computing():
                posterior = vae.encode(image.to(self.device)).latent_dist
            made.append(posterior.mean.float() + posterior.std.float() * draw.to(self.device))
        latents: Tensor = torch.cat(made) * vae.config.scaling_factor
        return latents

    def noised(self, latents: Tensor, time: int, draws: Tensor) -> Tensor:
        """Return latents with the noise of a time."""
        kept = self._kept[time]
        return kept**0.5 * latents + (1 - kept) ** 0.5 * draws.to(self.device)

    def look_at(self, latents: Tensor) -> Tensor:
        """Keep the keys and values of references for `predict`, and return the noise predicted for them.

        Args:
            latents: noised ones, [B · n, 4, h, w], image by image.
        """
        return self._predicted(self.original_unet, latents, self.behaviour.reference_timestep)

    def predict(self, x: Tensor) -> Tensor:
        """Return the noise predicted for an input with the references of `look_at`, float32 [B, 4, h, w]."""
        return self._predicted(self.unet, x, self.behaviour.timestep)

    def clean(self, x: Tensor, predicted: Tensor) -> Tensor:
        """Return the latent without the predicted noise."""
        kept = self._kept[self.behaviour.timestep]
        made = (x - (1 - kept) ** 0.5 * predicted) / kept**0.5
        return made if self._clip is None else made.clamp(-self._clip, self._clip)

    def decode(self, latent: Tensor) -> Tensor:
        """Return the image of a scaled latent, float32 [B, 3, H, W], nominally −1..1, not clamped."""
        with self._computing():
            decoded: Tensor = self.vae.decode(latent / self.vae.config.scaling_factor, return_dict=False)[0]
        return decoded.float()

    @torch.no_grad()
    def restore(self, pixels: Tensor, references: Tensor, draws: Draws) -> Tensor:
        """Return what `decode` gives for one image.

        Args:
            pixels: the input, [1, 3, H, W] in −1..1.
            references: [n, 3, H, W] in −1..1, n at least 1.
            draws: of the case.
        """
        latents = self.encode(self.original_vae, references, draws.reference_posterior)
        self.look_at(self.noised(latents, self.behaviour.reference_timestep, draws.reference_noise))
        latent = self.encode(self.vae, pixels, draws.input_posterior)
        x = self.noised(latent, self.behaviour.timestep, draws.input_noise)
        predicted = self.predict(x)
        self._references.clear()
        return self.decode(self.clean(x, predicted))

    def _predicted(self, unet: Any, x: Tensor, time: int) -> Tensor:
        states = self.states.expand(len(x), -1, -1)
        with self._computing():
            predicted: Tensor = unet(x, time, encoder_hidden_states=states, return_dict=False)[0]
        return predicted.float()

    def _computing(self) -> AbstractContextManager[Any]:
        if self._autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.split(":")[0], dtype=self._autocast)


def _encoded(networks: Networks, prompt: str, device: str) -> tuple[Tensor, Tensor]:
    """Return the ids of a prompt, int64 [1, 77], and its states after the last norm, [1, 77, C]; no gradients."""
    most = networks.tokenizer.model_max_length
    ids = networks.tokenizer(prompt, padding="max_length", max_length=most, truncation=True)["input_ids"]
    tokens = torch.tensor([ids])
    with torch.no_grad():
        states: Tensor = networks.text_encoder(tokens.to(device)).last_hidden_state
    return tokens, states
