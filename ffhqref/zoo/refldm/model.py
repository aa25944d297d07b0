"""ReF-LDM: encode, sample with DDIM under guidance by references, decode."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ffhqref.core.errors import ConfigError
from ffhqref.zoo.refldm import converted
from ffhqref.zoo.refldm.batching import BoundedStore, in_batches
from ffhqref.zoo.refldm.checkpoint import load_published
from ffhqref.zoo.refldm.config import RefLDMConfig
from ffhqref.zoo.refldm.first_stage import FirstStage
from ffhqref.zoo.refldm.keys_values import KeysValues, RowGroup, WithReferences
from ffhqref.zoo.refldm.layers import NORM_GROUPS, laid_out
from ffhqref.zoo.refldm.schedule import DDIMTable, alphas_cumprod
from ffhqref.zoo.refldm.unet import UNet

# Pixels that go through the first stage at once: five references of 512 x 512, the widest strip of the benchmark.
# Its activations, not the U-Net's, are the largest there are.
_FIRST_STAGE_PIXELS = 5 * 512 * 512


@dataclass(frozen=True)
class DenoisingStep:
    """What a caller may look at after each step of DDIM.

    Attributes:
        cases: positions in the call's batch that the rows belong to.
        index: number of the step, from 0.
        timestep: its time step.
        x: latents before the step, [b, C, h, w].
        noise: predicted noise, [b, C, h, w], or with guidance [2·b, C, h, w]: unconditional, then conditional.
        x_0: clean latents that the guided prediction implies, [b, C, h, w].
    """

    cases: tuple[int, ...]
    index: int
    timestep: int
    x: Tensor
    noise: Tensor
    x_0: Tensor


class RefLDM:
    """The model in working order. Weights are float32, or lower where asked for; the sampler's sums never are.

    Args:
        config: architecture and schedule.
        unet: the denoiser; taken over: moved, set to evaluation and closed to gradients.
        first_stage: the VQ auto-encoder; taken over too.
        device: where to work.
        dtype: precision of the U-Net (float32, bfloat16 or float16). On a GPU torch lets float32 convolutions use
            TF32 unless ``torch.backends.cudnn.allow_tf32`` is off, as it does for the published scripts.
        first_stage_dtype: precision of encoder and decoder. The nearest code is always sought in float32.
        batch_size: cases that are denoised at once; halved when memory runs out.
        compile_mode: mode of `torch.compile` for the U-Net ("default", "reduce-overhead", "max-autotune");
            None: not compiled.
        latent_store_bytes: memory for the latents of references already seen, on the CPU. With it, the same
            references in a later call (the other degradation level of an image, another seed) cost nothing.
        keys_store_bytes: memory for their keys and values, on the device.
    """

    def __init__(
        self,
        config: RefLDMConfig,
        unet: UNet,
        first_stage: FirstStage,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        first_stage_dtype: torch.dtype = torch.float32,
        batch_size: int = 8,
        compile_mode: str | None = None,
        latent_store_bytes: int = 1 << 30,
        keys_store_bytes: int = 1 << 30,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, not {batch_size}")
        self.config = config
        self.device = torch.device(device)
        self.batch_size = batch_size
        self.alphas = alphas_cumprod(config.timesteps, config.linear_start, config.linear_end)
        self.unet = laid_out(unet.to(self.device, dtype), torch.channels_last).eval()
        self.first_stage = laid_out(first_stage.to(self.device, first_stage_dtype), torch.channels_last).eval()
        for module in (self.unet, self.first_stage):
            module.requires_grad_(False)
        self._denoise: Callable[..., Tensor] = self.unet
        if compile_mode is not None:
            self._denoise = torch.compile(self.unet, mode=compile_mode)
        self._latents: BoundedStore[Tensor] = BoundedStore(latent_store_bytes)
        self._keys: BoundedStore[KeysValues] = BoundedStore(keys_store_bytes)

    @classmethod
    def from_checkpoint(
        cls,
        refldm_ckpt: str | Path,
        vqgan_ckpt: str | Path | None = None,
        config: RefLDMConfig | str | Path | None = None,
        *,
        cache_dir: str | Path | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        first_stage_dtype: torch.dtype = torch.float32,
        batch_size: int = 8,
        compile_mode: str | None = None,
    ) -> RefLDM:
        """Load the published pair of files, or a file that `converted.convert` made of them.

        Args:
            refldm_ckpt: ``refldm.ckpt``, or a converted ``.safetensors``, which needs nothing else.
            vqgan_ckpt: ``vqgan.ckpt``; None where the main file holds the first stage.
            config: the architecture: a published-style YAML, a config, or None for the released one (for a
                converted file: the one it holds).
            cache_dir: folder that keeps the converted file, so that the next start reads that one.
            device: see the class; so are the rest.
            dtype: see the class.
            first_stage_dtype: see the class.
            batch_size: see the class.
            compile_mode: see the class.

        Raises:
            WeightsError: a file is missing, damaged, incomplete, or of another model.
            ConfigError: the config is no ReF-LDM's.
        """
        if vqgan_ckpt is None and str(refldm_ckpt).endswith(".safetensors"):
            weights, known = converted.load_converted(refldm_ckpt)
            if config is not None and RefLDMConfig.load(config) != known:
                raise ConfigError(f"{refldm_ckpt} holds another architecture than the given config; leave that out")
        elif cache_dir is not None:
            weights, known = converted.load_cached(refldm_ckpt, vqgan_ckpt, cache_dir, RefLDMConfig.load(config))
        else:
            known = RefLDMConfig.load(config)
            weights = load_published(refldm_ckpt, vqgan_ckpt, known)
        with torch.device("meta"):  # no time and no random numbers for values that are overwritten at once
            unet, first_stage = UNet(known.unet), FirstStage(known.first_stage)
        for module, state in ((unet, weights.unet), (first_stage, weights.first_stage)):
            module.to_empty(device="cpu").load_state_dict(state)
        return cls(
            known,
            unet,
            first_stage,
            device=device,
            dtype=dtype,
            first_stage_dtype=first_stage_dtype,
            batch_size=batch_size,
            compile_mode=compile_mode,
        )

    @property
    def latent_factor(self) -> int:
        """Return image side divided by latent side."""
        return self.config.first_stage.downscale

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Return latents before quantisation, float32 [B, C, H/f, W/f], of images [B, 3, H, W] in −1..1."""
        images = images.to(self.device, torch.float32)
        size = self._first_stage_batch(images.shape[2] * images.shape[3])
        parts = in_batches(
            lambda batch: self.first_stage.encode(images[batch[0] : batch[-1] + 1]), images.shape[0], size
        )
        return torch.cat(parts)

    @torch.no_grad()
    def decode(self, latent: Tensor) -> Tensor:
        """Quantise latents [B, C, h, w] and return images, float32 [B, 3, H, W] in −1..1 before clamping."""
        latent = latent.to(self.device, torch.float32)
        pixels = latent.shape[2] * latent.shape[3] * self.latent_factor**2
        size = self._first_stage_batch(pixels)
        parts = in_batches(
            lambda batch: self.first_stage.decode(latent[batch[0] : batch[-1] + 1]), latent.shape[0], size
        )
        return torch.cat(parts)

    def _first_stage_batch(self, pixels: int) -> int:
        """Return how many images of so many pixels go through the first stage at once."""
        return max(1, min(self.batch_size, _FIRST_STAGE_PIXELS // pixels))

    def encode_references(self, references: Tensor) -> Tensor:
        """Return the latents [N, C, h, w] of one case's references [N, 3, H, W] in −1..1.

        They are joined along the width and encoded as one wide image, as the published code does, whose group
        norm and middle attention then see all of them (ldm/cache_kv.py): latents of references encoded one by
        one are other latents.
        """
        count = references.shape[0]
        strip = torch.cat(list(references), dim=2).unsqueeze(0)
        latent = self.encode(strip)[0]
        return torch.stack(latent.chunk(count, dim=2))

    @torch.no_grad()
    def sample_latent(
        self,
        lq: Tensor,
        references: Tensor | Sequence[Tensor] | None,
        x_T: Tensor,
        steps: int = 100,
        guidance_scale: float = 1.5,
        spacing: str = "uniform",
        *,
        start_time: int | None = None,
        callback: Callable[[DenoisingStep], None] | None = None,
    ) -> Tensor:
        """Restore: return the final latents, float32 [B, C, H/f, W/f], of DDIM with eta 0.

        Cases whose references are equal share them: encoded once, sent through the U-Net once. Numbers of
        references may differ between cases. What comes out for a case does not depend on its neighbours, up to
        float rounding.

        Args:
            lq: degraded images, [B, 3, H, W] in −1..1.
            references: [B, N, 3, H, W] in −1..1; or B tensors [N_i, 3, H, W]; None: no references.
            x_T: start noise, [B, C, H/f, W/f], or [1, …] shared by all cases, as published.
            steps: nominal number of steps (see `schedule.ddim_timesteps`).
            guidance_scale: 1 uses the given references alone; else the prediction is moved away from that under
                null references (zero latents; the LQ image is kept), with twice the work.
            spacing: ``uniform`` (the paper's benchmark) or ``uniform_trailing`` (its demo).
            start_time: not published: steps above this time step are left out, and the first one left starts from the
                LQ image's latents under that step's share of ``x_T``, as DifFace does with its estimate.
            callback: shown every step.

        Raises:
            ConfigError: shapes, ranges or settings do not fit.
        """
        given = list(lq.new_zeros(lq.shape[0], 0, *lq.shape[1:]) if references is None else references)
        self._check(lq, given, x_T)
        table = DDIMTable.make(self.alphas, steps, spacing)
        if start_time is not None:
            table = table.up_to(start_time)
        x_T = x_T.to(self.device, torch.float32).expand(lq.shape[0], -1, -1, -1)

        def work(batch: Sequence[int]) -> Tensor:
            # Cases with equally many references lie side by side: attention works group by group.
            order = sorted(batch, key=lambda case: given[case].shape[0])
            latents = self._sample(
                lq[order],
                [given[case] for case in order],
                x_T[order],
                table,
                guidance_scale,
                tuple(order),
                callback,
                start_time is not None,
            )
            back = [order.index(case) for case in batch]
            return latents[back]

        return torch.cat(in_batches(work, lq.shape[0], self.batch_size))

    def forget(self) -> None:
        """Drop stored references, for instance after the weights were changed."""
        self._latents.clear()
        self._keys.clear()

    def _sample(
        self,
        lq: Tensor,
        references: list[Tensor],
        x: Tensor,
        table: DDIMTable,
        guidance_scale: float,
        cases: tuple[int, ...],
        callback: Callable[[DenoisingStep], None] | None,
        from_lq: bool,
    ) -> Tensor:
        guided = guidance_scale != 1.0 and any(len(item) for item in references)
        condition = self.encode(lq)
        if from_lq:
            alpha = float(table.alpha[0])
            x = alpha**0.5 * condition.float() + (1.0 - alpha) ** 0.5 * x
        attend = self._attend(references, guided, (int(x.shape[2]), int(x.shape[3])))
        for index in range(len(table)):
            t = torch.full((1,), int(table.timesteps[index]), device=self.device)
            noise = self._denoise(torch.cat([x, condition], dim=1), t, attend)
            guess = noise
            if guided:
                without, given = noise.chunk(2)
                guess = without + guidance_scale * (given - without)
            now, then = float(table.alpha[index]), float(table.alpha_next[index])
            x_0 = (x - (1.0 - now) ** 0.5 * guess) / now**0.5
            if callback is not None:
                callback(DenoisingStep(cases, index, int(table.timesteps[index]), x, noise, x_0))
            x = then**0.5 * x_0 + (1.0 - then) ** 0.5 * guess
        return x

    def _attend(self, references: list[Tensor], guided: bool, side: tuple[int, int]) -> WithReferences:
        """Return what each row attends to: with guidance first the rows under null references, then the others."""
        counts = [item.shape[0] for item in references]
        groups = []
        start = 0
        if guided:
            copies = torch.tensor(counts, dtype=torch.float32, device=self.device)
            groups.append(RowGroup(0, len(counts), self._null_keys_values(side), copies))
            start = len(counts)
        keys = self._reference_keys_values(references)
        first = 0
        while first < len(counts):
            last = first + counts.count(counts[first])
            found = keys[first:last]
            shared = all(item is found[0] for item in found)
            group = found[:1] if shared else found
            given = KeysValues.stacked([item for item in group if item is not None]) if counts[first] else None
            groups.append(RowGroup(start + first, start + last, given))
            first = last
        return WithReferences(groups)

    def _null_keys_values(self, side: tuple[int, int]) -> KeysValues:
        """Return keys and values of one null reference: they depend on the weights alone."""
        name = f"null {side}"
        found = self._keys.get(name)
        if found is None:
            unet = self.unet
            if self.config.unet.model_channels == NORM_GROUPS:
                # A norm's group is then one channel wide, the variance of what comes of zero latents nothing, and
                # rounding all that is left to be scaled up. The published layout rounds as the published code does.
                unet = laid_out(copy.deepcopy(unet), torch.contiguous_format)
            zero = torch.zeros(1, self.config.unet.in_channels, *side, device=self.device)
            found = unet.keys_values(zero)
            self._keys.put(name, found, found.nbytes)
        return found

    def _reference_keys_values(self, references: list[Tensor]) -> list[KeysValues | None]:
        """Return the joined keys and values of each case's references; equal references give one object."""
        names = [_digest(item) if len(item) else "" for item in references]
        found: dict[str, KeysValues] = {}
        for name, item in zip(names, references, strict=True):
            if not name or name in found:
                continue
            known = self._keys.get(name)
            if known is None:
                latents = self._latents.get(name)
                if latents is None:
                    latents = self.encode_references(item.to(self.device, torch.float32))
                    self._latents.put(name, latents.cpu(), latents.nbytes)
                latents = latents.to(self.device)
                known = self.unet.keys_values(torch.cat([latents, torch.zeros_like(latents)], dim=1))
                known = known.merged(latents.shape[0])
                self._keys.put(name, known, known.nbytes)
            found[name] = known
        return [found.get(name) for name in names]

    def _check(self, lq: Tensor, references: list[Tensor], x_T: Tensor) -> None:
        if lq.dim() != 4 or lq.shape[1] != 3:
            raise ConfigError(f"lq must be [B, 3, H, W], not {list(lq.shape)}")
        batch, _, height, width = lq.shape
        step = self.latent_factor * 2 ** (len(self.config.unet.channel_mult) - 1)
        if height % step or width % step:
            raise ConfigError(f"image sides must be multiples of {step} pixels, not {height}x{width}")
        wanted = (self.config.channels, height // self.latent_factor, width // self.latent_factor)
        if x_T.dim() != 4 or tuple(x_T.shape[1:]) != wanted or x_T.shape[0] not in (1, batch):
            raise ConfigError(f"x_T must be [{batch} or 1, {', '.join(map(str, wanted))}], not {list(x_T.shape)}")
        if len(references) != batch:
            raise ConfigError(f"references are given for {len(references)} cases, lq for {batch}")
        for item in references:
            if item.dim() != 4 or tuple(item.shape[1:]) != (3, height, width):
                raise ConfigError(f"references must be [N, 3, {height}, {width}] a case, not {list(item.shape)}")
        for name, item in [("lq", lq), *(("references", item) for item in references)]:
            if item.numel() and not -1.001 <= float(item.min()) <= float(item.max()) <= 1.001:
                raise ConfigError(
                    f"{name} must be finite and in -1..1, found {float(item.min()):.4g}..{float(item.max()):.4g}"
                )


def _digest(references: Tensor) -> str:
    """Return a key of the content of references, so that equal ones are recognised wherever they come from."""
    values = references.detach().to("cpu", torch.float32).contiguous()
    return hashlib.sha256(repr(tuple(values.shape)).encode() + values.numpy().tobytes()).hexdigest()
