"""The restorer `refldm`: the model behind the zoo's protocol, with the published settings as presets."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ffhqref.core.errors import ConfigError, WeightsError, did_you_mean
from ffhqref.core.images import SIZE
from ffhqref.restorers.base import RestorationBatch, Restorer, RestorerInfo
from ffhqref.weights.files import Weights, file_sha256, require
from ffhqref.weights.tensors import holding
from ffhqref.zoo.refldm.config import RefLDMConfig
from ffhqref.zoo.refldm.schedule import ddim_timesteps
from ffhqref.zoo.shared.network import best_device

if TYPE_CHECKING:
    import torch

    from ffhqref.zoo.refldm.model import RefLDM

INFO = RestorerInfo(
    name="refldm",
    summary="Latent diffusion whose attention layers see the references' keys and values (CacheKV)",
    min_references=1,
    max_references=5,
    input_size=512,
    licence="non-commercial research (weights); the implementation is Apache-2.0",
    commercial_use=False,
    trained_on=("FFHQ-Ref train",),
    recognisers=("webface-r50",),
    paper="Hsiao et al., ReF-LDM, NeurIPS 2024, arXiv 2412.05043",
    weights=("refldm", "refldm-vqgan"),
    verified_against="outputs of the published code (commit af6690c) on random weights: latents within 1e-4 relative",
)


@dataclass(frozen=True)
class Preset:
    """A published set of sampling settings (inference.py, scripts/inference_dataset.py)."""

    steps: int
    spacing: str
    guidance_scale: float
    max_references: int | None


PRESETS = {
    "paper": Preset(steps=100, spacing="uniform", guidance_scale=1.5, max_references=5),
    "demo": Preset(steps=50, spacing="uniform_trailing", guidance_scale=1.5, max_references=None),
}
"""`paper`: scripts/inference_dataset.py, which made the paper's tables; `demo`: inference.py."""


class RefLDMRestorer(Restorer):
    """ReF-LDM as a restorer. Weights are loaded on the first call of `restore`.

    Images of another side than the model's are resized to it, and the result back, bicubic with antialiasing.

    Args:
        refldm_ckpt: ``refldm.ckpt`` as released, or a converted ``.safetensors``; None: both released files, from
            the weight registry.
        vqgan_ckpt: ``vqgan.ckpt`` as released; None where the main file holds the first stage.
        config: published-style YAML of the architecture; None: the released one, or the converted file's own.
        preset: ``paper`` or ``demo``; the four settings that follow override it.
        steps: nominal number of DDIM steps.
        spacing: ``uniform`` or ``uniform_trailing``.
        guidance_scale: 1 switches guidance off.
        max_references: the first so many of a case are used, never repeated; None: all; "preset": the preset's.
        start_time: not published: start at this time step from the noised LQ latents (`RefLDM.sample_latent`).
        noise: ``shared``: one start noise for all cases, drawn from ``seed``, as published; ``case``: one for
            each case, drawn from its own seed.
        seed: of the shared noise.
        noise_device: where noise is drawn. The same seed gives other noise on CUDA than on the CPU; ``cpu`` gives
            the same on every machine, ``cuda`` what the published scripts draw on a GPU.
        device: ``auto`` takes CUDA, then MPS, then the CPU.
        dtype: precision of the U-Net: float32, bfloat16 or float16.
        first_stage_dtype: precision of the VQ encoder and decoder.
        batch_size: cases denoised at once; halved when memory runs out.
        compile_mode: mode of `torch.compile`; None: not compiled.
        cache_dir: folder for the converted weights; None: converted in memory at each start.
        info: facts to change, for other weights in the same architecture (``{"name": "refldm-tiny", …}``).

    Raises:
        ConfigError: an unknown preset, setting or architecture.
        WeightsError: a weight file is not there, or not the published one.
    """

    info = INFO
    cache_ignored_options = ("refldm_ckpt", "vqgan_ckpt", "batch_size", "cache_dir")
    quantization = "truncate"
    """How the published scripts make 8-bit images: both cut off instead of rounding (inference.py)."""

    def __init__(
        self,
        refldm_ckpt: str | Path | None = None,
        vqgan_ckpt: str | Path | None = None,
        *,
        config: RefLDMConfig | str | Path | None = None,
        preset: str = "paper",
        steps: int | None = None,
        spacing: str | None = None,
        guidance_scale: float | None = None,
        max_references: int | Literal["preset"] | None = "preset",
        start_time: int | None = None,
        noise: str = "shared",
        seed: int = 2024,
        noise_device: str = "cpu",
        device: str = "auto",
        dtype: str = "float32",
        first_stage_dtype: str = "float32",
        batch_size: int = 8,
        compile_mode: str | None = None,
        cache_dir: str | Path | None = None,
        info: dict[str, Any] | None = None,
    ) -> None:
        if preset not in PRESETS:
            raise ConfigError(f"unknown preset '{preset}'.{did_you_mean(preset, PRESETS)} Known: {', '.join(PRESETS)}")
        if noise not in ("shared", "case"):
            raise ConfigError(f"noise must be 'shared' or 'case', not '{noise}'")
        for name, value in (("dtype", dtype), ("first_stage_dtype", first_stage_dtype)):
            if value not in ("float32", "bfloat16", "float16"):
                raise ConfigError(f"{name} must be float32, bfloat16 or float16, not '{value}'")
        chosen = PRESETS[preset]
        self.steps = chosen.steps if steps is None else steps
        self.spacing = chosen.spacing if spacing is None else spacing
        self.guidance_scale = chosen.guidance_scale if guidance_scale is None else guidance_scale
        self.max_references = chosen.max_references if max_references == "preset" else max_references
        if self.max_references is not None and self.max_references < 1:
            raise ConfigError(f"max_references must be at least 1, or null for all, not {self.max_references}")
        self.start_time = start_time
        self.noise = noise
        self.seed = seed
        self.noise_device = noise_device
        self._files = _files(refldm_ckpt, vqgan_ckpt)
        named = zip(INFO.weights, map(_path, self._files), strict=True)
        self._weights = [Weights(name, path.name, path, file_sha256(path), None) for name, path in named if path]
        self.weights_sha256 = {file.name: file.sha256 for file in self._weights}
        self.config = _architecture(*self._files, config)
        ddim_timesteps(self.steps, self.spacing, self.config.timesteps)  # refuses now what would fail later
        self.batch_size = batch_size
        self.device = best_device() if device == "auto" else device
        self._compile_mode = compile_mode
        self._cache_dir = cache_dir
        self._dtypes = (dtype, first_stage_dtype)
        self._model: RefLDM | None = None
        facts = {
            "max_references": self.max_references,
            "input_size": self.config.picture_size if self.config.picture_size == SIZE else None,
            "uses_seed": noise == "case",
            **(info or {}),
        }
        try:
            self.info = dataclasses.replace(type(self).info, **facts)
        except TypeError as error:
            raise ConfigError(f"refldm: info has an unknown entry: {error}") from None

    @property
    def model(self) -> RefLDM:
        """Return the model, loaded on first use.

        Raises:
            WeightsError: the files are damaged, incomplete, or of another model.
        """
        if self._model is None:
            import torch

            from ffhqref.zoo.refldm.model import RefLDM

            converted = self._files[1] is None and str(self._files[0]).endswith(".safetensors")
            dtype, first_stage_dtype = (getattr(torch, name) for name in self._dtypes)
            with holding(self._weights):
                self._model = RefLDM.from_checkpoint(
                    *self._files,
                    self.config,
                    cache_dir=None if converted else self._cache_dir,
                    device=self.device,
                    dtype=dtype,
                    first_stage_dtype=first_stage_dtype,
                    batch_size=self.batch_size,
                    compile_mode=self._compile_mode,
                )
        return self._model

    def restore(self, batch: RestorationBatch) -> torch.Tensor:
        """Return float32 [B, 3, H, W] in 0..1 RGB on the CPU; see `base.Restorer`."""
        side = self.config.picture_size
        lq = _signed(_resized(batch.lq, side))
        given = [_signed(_resized(item[: self.max_references], side)) for item in batch.references]
        latent = self.model.sample_latent(
            lq,
            given,
            self.start_noise(batch.seeds),
            self.steps,
            self.guidance_scale,
            self.spacing,
            start_time=self.start_time,
        )
        image = ((self.model.decode(latent) + 1.0) / 2.0).clamp(0.0, 1.0).cpu()
        return _resized(image, batch.lq.shape[2])

    def start_noise(self, seeds: list[int]) -> torch.Tensor:
        """Return x_T: [1, C, h, w] shared by all cases, or [B, C, h, w] from the cases' seeds.

        An image is as large as the ones the model was trained at, so the latent is too.
        """
        import torch

        shape = (1, self.config.channels, self.config.image_size, self.config.image_size)

        def draw(seed: int) -> torch.Tensor:
            generator = torch.Generator(self.noise_device).manual_seed(seed)
            return torch.randn(shape, generator=generator, device=self.noise_device)

        return draw(self.seed) if self.noise == "shared" else torch.cat([draw(seed) for seed in seeds])


def _files(refldm_ckpt: str | Path | None, vqgan_ckpt: str | Path | None) -> tuple[str | Path, str | Path | None]:
    if refldm_ckpt is None:
        return require("refldm").path, vqgan_ckpt or require("refldm-vqgan").path
    for path in (refldm_ckpt, vqgan_ckpt):
        if path is not None and not Path(path).is_file():
            raise WeightsError(f"refldm: no such weight file: {path}")
    return refldm_ckpt, vqgan_ckpt


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


def _signed(pictures: torch.Tensor) -> torch.Tensor:
    """Return images of 0..1 in −1..1, by way of double, as the published data set class computes."""
    return (pictures.double() * 2.0 - 1.0).float()


def _resized(pictures: torch.Tensor, side: int) -> torch.Tensor:
    """Return images [N, 3, H, H] in 0..1 at another side, untouched where it is theirs."""
    if pictures.shape[2] == side:
        return pictures
    if not len(pictures):
        return pictures.new_zeros(0, 3, side, side)
    from torch.nn import functional as F

    size = (side, side)
    return F.interpolate(pictures, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0.0, 1.0)


def _architecture(
    refldm_ckpt: str | Path, vqgan_ckpt: str | Path | None, config: RefLDMConfig | str | Path | None
) -> RefLDMConfig:
    if config is None and vqgan_ckpt is None and str(refldm_ckpt).endswith(".safetensors"):
        from ffhqref.zoo.refldm.converted import read_config

        return read_config(refldm_ckpt)
    return RefLDMConfig.load(config)
