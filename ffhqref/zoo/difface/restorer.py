"""DifFace: a first estimate by SwinIR, noised to the middle of a diffusion chain and denoised from there.

Yue and Loy, "DifFace: Blind Face Restoration with Diffused Error Contraction" (arXiv 2212.06512). Behaviour: the
published inference_difface.py for aligned faces, sampler.py and configs/sample/iddpm_ffhq512_swinir.yaml. SwinIR is
spandrel's; the U-Net is the one of `guided_diffusion`, and its file is PGDiff's too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError
from ffhqref.restorers.base import RestorationBatch, RestorerInfo
from ffhqref.weights.tensors import load_into, load_tensors
from ffhqref.zoo.difface.config import DifFaceConfig
from ffhqref.zoo.shared.guided_diffusion.diffusion import Diffusion, Step
from ffhqref.zoo.shared.guided_diffusion.restorer import DiffusionRestorer, input_size, load_unet, resize_antialiased
from ffhqref.zoo.shared.network import signed, unsigned
from ffhqref.zoo.shared.swinir import build_swinir, spandrel_names

if TYPE_CHECKING:
    import torch

    from ffhqref.zoo.shared.guided_diffusion.draws import Draws
    from ffhqref.zoo.shared.guided_diffusion.unet import GuidedUNet

INFO = RestorerInfo(
    name="difface",
    summary="SwinIR's first estimate, denoised from the middle of a diffusion chain (DifFace)",
    uses_seed=True,
    licence="S-Lab License 1.0 (weights, non-commercial); the implementation is Apache-2.0",
    commercial_use=False,
    trained_on=("FFHQ",),
    paper="Yue and Loy, DifFace, arXiv 2212.06512",
    weights=("difface-diffusion", "difface-swinir"),
    verified_against="outputs of the published code (January 2025) on random weights and stored draws: within 1e-4",
)


class DifFace(DiffusionRestorer):
    """DifFace as a restorer. Weights are loaded on the first call.

    The published script seeds once a run, before it builds its networks, so its noise depends on how torch
    initialises them and on the order of the images; here each case has its own noise, from its seed. Single
    precision throughout, as its default; its README passes ``--use_fp16``.

    Args:
        path: ``iddpm_ffhq512_ema500000.pth``; None: from the weight registry.
        swinir_path: ``swinir_restoration512_L1.pth``; None: from the weight registry. Not needed without
            `need_restoration`.
        config: architecture in the published form, as a mapping or the path of a YAML or JSON file; None: released.
        respacing: steps kept of the chain (`guided_diffusion.diffusion.kept_times`).
        start: index of the kept steps that the estimate is noised to; denoising starts one below, as published.
        eta: fresh noise of each step, 0 (faithful, deterministic but for the start) to 1 (realistic).
        need_restoration: False: the input itself takes the place of SwinIR's estimate.
        device: ``auto`` takes CUDA, then MPS, then the CPU.
        batch_size: cases denoised at once.

    Raises:
        ConfigError: an unknown architecture or setting.
        DependencyError: spandrel is not installed.
        WeightsError: a file is missing or not the published one.
    """

    info = INFO
    cache_ignored_options = ("path", "swinir_path", "batch_size")

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        swinir_path: str | Path | None = None,
        config: DifFaceConfig | Mapping[str, Any] | str | Path | None = None,
        respacing: str | Sequence[int] = "ddim250",
        start: int = 100,
        eta: float = 0.5,
        need_restoration: bool = True,
        device: str = "auto",
        batch_size: int = 1,
    ) -> None:
        self.config = DifFaceConfig.load(config)
        self.diffusion = Diffusion.respaced(respacing, self.config.steps)
        if not 0 < start < len(self.diffusion):
            raise ConfigError(
                f"difface: start={start}, expected 1..{len(self.diffusion) - 1} (respacing {respacing!r})"
            )
        if not 0 <= eta <= 1:
            raise ConfigError(f"difface: eta={eta}, expected 0..1")
        self.start = start
        self.eta = eta
        self.need_restoration = need_restoration
        self.batch_size = batch_size
        files = {"difface-diffusion": path, **({"difface-swinir": swinir_path} if need_restoration else {})}
        super().__init__(files, device)
        self.diffusion_side = self.config.unet.image_size
        self.info = replace(INFO, input_size=input_size(self.diffusion_side), weights=tuple(files))

    @cached_property
    def unet(self) -> GuidedUNet:
        """The denoiser."""
        return load_unet(self.files["difface-diffusion"], self.config.unet, self.device)

    @cached_property
    def swinir(self) -> torch.nn.Module:
        """The network of the first estimate: images of 0..1 to the same, not clamped."""
        network = build_swinir(self.config.swinir)
        path = self.files["difface-swinir"]
        tensors = load_tensors(path, wrappers=("state_dict",), prefix="module.")
        load_into(network, spandrel_names(tensors), path)
        return network.eval().requires_grad_(False).to(self.device)

    def estimate(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return the first estimate, 0..1, of images [B, 3, S, S]."""
        return (self.swinir(pictures) if self.need_restoration else pictures).clamp(0.0, 1.0)

    def sample(self, estimate: torch.Tensor, draws: Draws) -> Iterator[Step]:
        """Yield the steps of denoising; the last one's state is the result.

        Args:
            estimate: [B, 3, S, S] in 0..1.
            draws: the first noises the start, and each step takes one more, used or not.
        """
        x = self.diffusion.noised(signed(estimate), self.start, draws())
        for index in range(self.start - 1, -1, -1):
            time = int(self.diffusion.times[index])
            output = self.unet(x, time)
            x0 = self.diffusion.foreseen(x, index, output)
            state = self.diffusion.ddim(x0, output, index, self.eta, draws())
            yield Step(index, time, x, output, x0, state)
            x = state

    def restored(self, batch: RestorationBatch, draws: Draws) -> torch.Tensor:
        """Return float32 [B, 3, S, S] in 0..1; `restore` takes it to the input's size, as the published script does."""
        lq = resize_antialiased(batch.lq.to(self.device), (self.diffusion_side, self.diffusion_side))
        state = lq
        for step in self.sample(self.estimate(lq), draws):
            state = step.state
        return unsigned(state)
