"""One stage of FaceMe's training: its networks, its optimiser, and a step of it."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ffhqref.core.files import new_folder
from ffhqref.training.ema import RunningAverage
from ffhqref.zoo.faceme.mix import Mix, save_mix
from ffhqref.zoo.faceme.model import guided
from ffhqref.zoo.faceme.prompt import insert_identity, time_ids
from ffhqref.zoo.faceme.schedule import SamplerDraws, Schedule
from ffhqref.zoo.shared.model_folder import moved

if TYPE_CHECKING:
    from ffhqref.training.faceme.data import FaceMeBatch
    from ffhqref.training.faceme.settings import FaceMeSettings
    from ffhqref.training.faceme.start import Networks
    from ffhqref.training.files import State
    from ffhqref.training.runtime import TrainingRuntime

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class TrainingDraws:
    """What is random about a micro-batch besides its images and references."""

    posterior: Tensor
    """Standard normal, [B, 4, h, w]: which latent of the image's distribution."""
    noise: Tensor
    """Standard normal, [B, 4, h, w]: added to the latent, and what is to be predicted."""
    times: Tensor
    """int64 [B], 0..999."""


@dataclass(frozen=True)
class Forward:
    """One forward pass."""

    latents: Tensor
    noisy: Tensor
    tokens: Tensor | None
    """Identity tokens [B, n, C]; None for a text batch."""
    states: Tensor
    """[B, 77, C]."""
    prediction: Tensor
    wanted: Tensor
    loss: Tensor
    """Mean squared error over all elements; no weighting by time, no other term."""


class Conditioner(nn.Module):
    """What is trained, in one forward call, so that gradients are spread together: Mix and ControlNet."""

    def __init__(self, controlnet: nn.Module, mix: nn.Module) -> None:
        super().__init__()
        self.controlnet = controlnet
        self.mix = mix

    def forward(
        self,
        noisy: Tensor,
        times: Tensor,
        condition: Tensor,
        states: Tensor,
        position: int,
        added: dict[str, Tensor],
        features: tuple[Tensor, Tensor] | None,
    ) -> tuple[tuple[Tensor, ...], Tensor, Tensor, Tensor | None]:
        """Return the residuals of the down blocks and the middle one, the states [B, 77, C] and identity tokens."""
        tokens = None
        if features is None:
            states = states.expand(noisy.shape[0], -1, -1)
        else:
            tokens = self.mix(*features)
            states = insert_identity(states, position, tokens)
        down, middle = self.controlnet(
            noisy,
            times,
            encoder_hidden_states=states,
            added_cond_kwargs=added,
            controlnet_cond=condition,
            return_dict=False,
        )
        return tuple(down), middle, states, tokens


class FaceMeTask:
    """A stage's training, for `ffhqref.training.loop.train`.

    The trained networks stay in float32; U-Net and (stage 2) Mix are cast to the run's precision. The VAE stays in
    float32: that of SDXL overflows in half precision, in which the published script runs it.

    Args:
        settings: how it is trained.
        networks: what it starts from; `controlnet` and `mix` are changed in place.
        runtime: where it runs.
    """

    curve: tuple[str, ...] = ("loss", "identity", "references")

    def __init__(self, settings: FaceMeSettings, networks: Networks, runtime: TrainingRuntime) -> None:
        self.settings = settings
        self.run = settings.run
        self.runtime = runtime
        self.config = TaskConfig.of(networks)
        device, dtype = runtime.device, DTYPES[settings.run.precision]
        self.unet = moved(networks.unet, str(device), dtype).eval().requires_grad_(False)
        self.vae = moved(networks.vae, str(device), torch.float32).eval().requires_grad_(False)
        self.scheduler = networks.scheduler
        self.prompt = networks.prompt
        self.controlnet = moved(networks.controlnet, str(device), torch.float32).train().requires_grad_(True)
        self.mix: Mix = networks.mix.to(device)
        if settings.stage == 1:
            self.mix.train().requires_grad_(True)
        else:
            moved(self.mix, str(device), dtype).eval().requires_grad_(False)
        if settings.gradient_checkpointing:
            for network in (self.controlnet, self.unet):
                network.enable_gradient_checkpointing()
        self._states = networks.prompt.states.to(device, dtype)
        self._pooled = networks.prompt.pooled.to(device, dtype)
        conditioner = Conditioner(self.controlnet, self.mix)
        self.trained = [(name, value) for name, value in conditioner.named_parameters() if value.requires_grad]
        self.ema = RunningAverage(conditioner, settings.ema_decay) if settings.ema_decay is not None else None
        self._conditioner = conditioner
        self._prepared = runtime.prepare(conditioner)
        self._optimizer = runtime.prepare(
            torch.optim.AdamW(
                [value for _, value in self.trained],
                lr=self.run.learning_rate,
                betas=(0.9, 0.999),
                eps=1e-8,
                weight_decay=settings.weight_decay,
                # On a CPU torch's default goes tensor by tensor in Python, five times as long; scaled losses need it.
                fused=(device.type == "cpu" and settings.run.precision != "float16") or None,
            )
        )
        self.steps_done = 0
        self._moments: OrderedDict[str, tuple[Tensor, Tensor]] = OrderedDict()

    def step(self, batches: list[FaceMeBatch], rate: float, generator: torch.Generator) -> dict[str, float]:  # noqa: ARG002
        """Do one optimiser step over batches whose gradients are averaged, and return its losses.

        Batches bring the seed of their own draws, so that processes can share them as published.
        """
        found = self.gradients([(batch, self.draws(batch)) for batch in batches])
        self.update(rate)
        return found

    def gradients(self, pairs: Sequence[tuple[FaceMeBatch, TrainingDraws]]) -> dict[str, float]:
        """Leave the gradients of the mean loss of some micro-batches in the trained tensors; return its curve."""
        self._optimizer.zero_grad(set_to_none=True)
        sums = dict.fromkeys(self.curve, 0.0)
        for batch, draws in pairs:
            passed = self.forward(batch, draws)
            self.runtime.backward(passed.loss / len(pairs))
            sums["loss"] += self.runtime.mean(passed.loss) / len(pairs)
            if not batch.text:
                sums["identity"] += 1 / len(pairs)
                sums["references"] += batch.identity.shape[1] / len(pairs)
        return sums

    def update(self, rate: float) -> None:
        """Do an optimiser step with the gradients that are there."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self.steps_done += 1
        if self.ema is not None:
            self.ema.update(self._conditioner)

    def draws(self, batch: FaceMeBatch) -> TrainingDraws:
        """Return the draws of a batch from its seed, by a CPU generator, so that every device sees the same."""
        generator = torch.Generator().manual_seed(batch.seed)
        size, _, height, width = batch.target.shape
        factor = 2 ** (len(self.vae.config["block_out_channels"]) - 1)
        shape = (size, int(self.vae.config["latent_channels"]), height // factor, width // factor)
        posterior, noise = (torch.randn(shape, generator=generator) for _ in range(2))
        times = torch.randint(0, len(self.scheduler.alphas_cumprod), (size,), generator=generator)
        return TrainingDraws(posterior, noise, times)

    def forward(self, batch: FaceMeBatch, draws: TrainingDraws) -> Forward:
        """Return the loss of a micro-batch and what led to it; the gradient reaches ControlNet and Mix."""
        device = self.runtime.device
        mean, deviation = self.moments(batch)
        latents = (mean + deviation * draws.posterior.to(device)) * self.vae.config["scaling_factor"]
        noise, times = draws.noise.to(device), draws.times.to(device)
        noisy = self.scheduler.add_noise(latents, noise, times)
        features = None if batch.text else (batch.clip, batch.identity)
        prediction, states, tokens = self._predict(noisy, times, batch.condition.to(device), features)
        wanted = noise
        if self.scheduler.config["prediction_type"] == "v_prediction":
            wanted = self.scheduler.get_velocity(latents, noise, times)
        loss = F.mse_loss(prediction.float(), wanted.float(), reduction="mean")
        return Forward(latents, noisy, tokens, states, prediction, wanted, loss)

    def _predict(
        self, noisy: Tensor, times: Tensor, condition: Tensor, features: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return the U-Net's prediction, the states and the identity tokens; without features, of the plain text."""
        size, side = len(noisy), self.settings.resolution
        added = {
            "text_embeds": self._pooled.expand(size, -1),
            "time_ids": time_ids(side, side).to(noisy.device).expand(size, -1),
        }
        if features is not None:
            kind = next(self.mix.parameters()).dtype
            features = (features[0].to(noisy.device, kind), features[1].to(noisy.device, kind))
        with self.runtime.autocast():
            down, middle, states, tokens = self._prepared(
                noisy, times, condition, self._states, self.prompt.position, added, features
            )
            prediction = self.unet(
                noisy.to(self.unet.dtype),
                times,
                encoder_hidden_states=states.to(self.unet.dtype),
                added_cond_kwargs=added,
                down_block_additional_residuals=[residual.to(self.unet.dtype) for residual in down],
                mid_block_additional_residual=middle.to(self.unet.dtype),
                return_dict=False,
            )[0]
        return prediction, states, tokens

    @torch.no_grad()
    def samples(self, batch: FaceMeBatch) -> Tensor:
        """Return images to look at, [B, 3, 3, H, W] in −1..1: LQ, restored as the restorer does, ground truth.

        With averages, those restore. Guidance is the published 5, the draws are the same each time.
        """
        device = self.runtime.device
        schedule = Schedule(self.scheduler, self.settings.sample_steps)
        condition = batch.condition.to(device)
        mean, deviation = self._encode(condition)
        drawn = SamplerDraws.of_seed(self.run.seed, tuple(mean.shape), self.settings.sample_steps)
        latents = (mean + deviation * drawn.posterior.to(device)) * self.vae.config["scaling_factor"]
        x = schedule.start(latents, drawn.start.to(device))
        kept = self._swapped()
        try:
            for index, time in enumerate(schedule.timesteps):
                times = torch.full((len(x),), time, device=device)
                unconditional, conditional = (
                    self._predict(x, times, condition, features)[0].float()
                    for features in (None, (batch.clip, batch.identity))
                )
                prediction = guided(torch.cat([unconditional, conditional]), 5.0)
                x = schedule.step(index, x, prediction, drawn.steps[index].to(device))
        finally:
            self._take(kept)
        restored = self.vae.decode(x / self.vae.config["scaling_factor"], return_dict=False)[0].clamp(-1, 1)
        return torch.stack([batch.condition, restored.cpu(), batch.target], dim=1)

    @torch.no_grad()
    def moments(self, batch: FaceMeBatch) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the targets' latents, [B, 4, h, w] each, before scaling.

        With `cached_latents` each image is encoded by itself and once, so that the values do not depend on what
        else is in its batch.
        """
        device, limit = self.runtime.device, self.settings.cached_latents
        if not limit:
            return self._encode(batch.target.to(device))
        found = []
        for index, name in enumerate(batch.names):
            known = self._moments.get(name)
            if known is None:
                known = self._encode(batch.target[index : index + 1].to(device))
                if len(self._moments) < limit:
                    self._moments[name] = (known[0].cpu(), known[1].cpu())
            found.append(known)
        mean, deviation = (torch.cat([pair[part].to(device) for pair in found]) for part in (0, 1))
        return mean, deviation

    def _encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(self.runtime.device.type, enabled=False):
            distribution = self.vae.encode(images.float()).latent_dist
        return distribution.mean, distribution.std

    def state_dict(self) -> State:
        """Return all that a resumed run needs."""
        state = {
            "controlnet": self.controlnet.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "steps_done": self.steps_done,
        }
        if self.settings.stage == 1:
            state["mix"] = self.mix.state_dict()
        if self.ema is not None:
            state["ema"] = self.ema.state_dict()
        return state

    def load_state_dict(self, state: State) -> None:
        """Take up a saved state."""
        self.controlnet.load_state_dict(state["controlnet"])
        if self.settings.stage == 1:
            self.mix.load_state_dict(state["mix"])
        if self.ema is not None:
            self.ema.load_state_dict(state["ema"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.steps_done = int(state["steps_done"])

    def export(self, folder: Path) -> list[Path]:
        """Write ``checkpoint-N`` in the published layout, which the restorer loads: ``controlnet/``, stage 1 ``mix/``.

        With averages, those are in ``controlnet_ema/`` and ``mix_ema/`` beside them. The folder appears whole.
        """
        made = folder / f"checkpoint-{self.steps_done}"
        with new_folder(made) as temporary:
            self._write(temporary, "")
            if self.ema is not None:
                kept = self._swapped()
                try:
                    self._write(temporary, "_ema")
                finally:
                    self._take(kept)
        return sorted(path for path in made.iterdir() if path.is_dir())

    def _write(self, folder: Path, suffix: str) -> None:
        self.controlnet.save_pretrained(str(folder / f"controlnet{suffix}"))
        if self.settings.stage == 1:
            save_mix(self.mix, folder / f"mix{suffix}")

    def _swapped(self) -> dict[str, Tensor]:
        """Put the averages, where there are any, in place of the weights; return the weights."""
        if self.ema is None:
            return {}
        kept = {name: value.detach().clone() for name, value in self._conditioner.named_parameters()}
        self._take(self.ema.values)
        return kept

    @torch.no_grad()
    def _take(self, values: dict[str, Tensor]) -> None:
        for name, parameter in self._conditioner.named_parameters():
            if name in values:
                parameter.copy_(values[name])


@dataclass(frozen=True)
class TaskConfig:
    """What a run is about besides its settings; a state of another one is refused."""

    networks: str

    @classmethod
    def of(cls, networks: Networks) -> TaskConfig:
        """Return the architecture of the networks, and the prompt."""
        configs: dict[str, Any] = {
            name: {key: value for key, value in getattr(networks, name).config.items() if not key.startswith("_")}
            for name in ("unet", "vae", "controlnet", "scheduler")
        }
        mix = networks.mix.config
        configs |= {"mix": [mix.embed_dim, mix.id_dim], "prompt": networks.prompt.text}
        return cls(json.dumps(configs, sort_keys=True, default=str))

    def to_tree(self) -> dict[str, Any]:
        """Return it as plain values."""
        tree: dict[str, Any] = json.loads(self.networks)
        return tree
