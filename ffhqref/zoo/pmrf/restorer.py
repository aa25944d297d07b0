"""PMRF: the posterior mean by SwinIR, noised, then moved to a likely image by a rectified flow.

Ohayon et al., "Posterior-Mean Rectified Flow: Towards Minimum MSE Photo-Realistic Image Restoration", ICLR 2025 (arXiv
2410.00418). Behaviour: the published inference.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError, ImageError, did_you_mean
from ffhqref.core.images import SIZE
from ffhqref.restorers.base import RestorationBatch, RestorerInfo
from ffhqref.weights.files import find
from ffhqref.weights.tensors import holding
from ffhqref.zoo.pmrf.config import PMRFConfig
from ffhqref.zoo.shared.aligned import need_package
from ffhqref.zoo.shared.model_folder import small_files
from ffhqref.zoo.shared.network import NetworkRestorer

if TYPE_CHECKING:
    import torch

    from ffhqref.zoo.pmrf.checkpoint import Networks

INFO = RestorerInfo(
    name="pmrf",
    summary="SwinIR's posterior mean, moved to a likely image by a rectified flow in pixel space (PMRF)",
    uses_seed=True,
    licence="MIT (weights; the SwinIR among them is DifFace's, S-Lab License 1.0, non-commercial); the implementation "
    "is Apache-2.0",
    commercial_use=False,
    trained_on=("FFHQ",),
    paper="Ohayon et al., PMRF, ICLR 2025, arXiv 2410.00418",
    weights=("pmrf", "pmrf-ckpt"),
    verified_against="outputs of the published code (commit b6f16a41) on random weights and stored draws, both file "
    "forms: within 2e-5 relative, 8-bit values equal but for one level on 0.03 %; whether the hub's file holds the "
    "moving average was not seen",
)

OUTPUTS = ("restored", "posterior_mean")


@dataclass(frozen=True)
class FlowStep:
    """One Euler step."""

    time: float
    velocity: torch.Tensor
    """[B, 3, H, W]."""
    state: torch.Tensor
    """[B, 3, H, W] after the step, nominally 0..1, not clipped."""


class PMRF(NetworkRestorer):
    """PMRF as a restorer. Networks are loaded on the first call.

    The published script sets no seed and draws one noise for a batch of 64 files; here each case has its own noise,
    from its seed. Sides must be multiples of 64, as there. Single precision throughout; on a GPU the script lets matrix
    products use TF32.

    Args:
        path: ``model.safetensors`` of the hub, used as it is, or ``blind_face_restoration_pmrf.ckpt``, whose moving
            average takes the place of the flow's parameters; None: the first of the two that the weight registry finds.
        steps: Euler steps of the flow (K of the paper).
        output: ``restored``, or ``posterior_mean``, which the script writes to a second folder.
        noise_std: of the noise at the start; None: what the file says, 0.1 as released.
        eps: first time of the flow; None: what the file says, 0 as released.
        config: architectures: a `PMRFConfig`, a mapping with ``hdit`` and ``swinir``, or a JSON or YAML file.
        device: ``auto`` takes CUDA, then MPS, then the CPU.
        batch_size: cases restored at once.

    Raises:
        ConfigError: an unknown setting or architecture.
        DependencyError: spandrel is not installed.
        WeightsError: the file is missing, damaged, or not the published one.
    """

    info = INFO
    cache_ignored_options = ("path", "batch_size")

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        steps: int = 25,
        output: str = "restored",
        noise_std: float | None = None,
        eps: float | None = None,
        config: PMRFConfig | Mapping[str, Any] | str | Path | None = None,
        device: str = "auto",
        batch_size: int = 1,
    ) -> None:
        need_package(INFO.name, "spandrel", "zoo")
        if steps < 1:
            raise ConfigError(f"pmrf: steps={steps}, expected at least 1")
        if output not in OUTPUTS:
            guess = did_you_mean(output, OUTPUTS)
            raise ConfigError(f"pmrf: unknown output '{output}'.{guess} Known: {', '.join(OUTPUTS)}")
        self.config = PMRFConfig.load(config)
        self.steps = steps
        self.output = output
        self.batch_size = batch_size
        self._noise_std = noise_std
        self._eps = eps
        names = INFO.weights
        self._file = names[0] if path else next((name for name in names if find(name)), names[0])
        super().__init__({self._file: path}, device)
        folder, hub = self.files[self._file].path.parent, self.files[self._file].path.suffix == ".safetensors"
        self._small = small_files(self._file, folder, ["config.json"] if hub else [])
        self.weights_sha256 = {**self.weights_sha256, **{file.name: file.sha256 for file in self._small}}
        released = self.config == PMRFConfig()
        self.info = dataclasses.replace(INFO, uses_seed=output == "restored", input_size=SIZE if released else None)

    @cached_property
    def networks(self) -> Networks:
        """Both networks with their weights, in evaluation mode on the device.

        Raises:
            WeightsError: damaged, of other names or shapes, or of a model of another kind.
        """
        from ffhqref.zoo.pmrf.checkpoint import load_networks

        with holding(self._small):
            made = load_networks(self.files[self._file], self.config)
        for network in (made.flow, made.mean):
            network.eval().requires_grad_(False).to(self.device)
        return made

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise at the start."""
        return _first(self._noise_std, self.networks.noise_std, 0.1)

    @property
    def eps(self) -> float:
        """First time of the flow."""
        return _first(self._eps, self.networks.eps, 0.0)

    def posterior_mean(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return SwinIR's estimate of images [B, 3, H, W] in 0..1, not clipped."""
        made: torch.Tensor = self.networks.mean(pictures.to(self.device))
        return made

    def source(self, mean: torch.Tensor, draw: torch.Tensor) -> torch.Tensor:
        """Return where the flow starts: the clipped posterior mean [B, 3, H, W] with noise of that draw."""
        return mean.clamp(0.0, 1.0) + self.noise_std * draw.to(mean.device)

    def flow(self, x: torch.Tensor) -> Iterator[FlowStep]:
        """Yield the steps from a start [B, 3, H, W]; the last one's state is the result."""
        span = 1.0 - self.eps
        for number in range(self.steps):
            time = number / self.steps * span + self.eps
            velocity = self.networks.flow(x, time)
            x = x + velocity * (1 / self.steps) * span
            yield FlowStep(time, velocity, x)

    def draw(self, batch: RestorationBatch) -> torch.Tensor:
        """Return the noise of a batch's cases, float32 [B, 3, H, W], each from its seed."""
        import torch

        shape = tuple(batch.lq.shape[1:])
        return torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in batch.seeds])

    def restore(self, batch: RestorationBatch, draw: torch.Tensor | None = None) -> torch.Tensor:
        """Return float32 [B, 3, H, W] in 0..1 RGB on the CPU; see `base.Restorer`.

        Args:
            batch: the cases.
            draw: in place of the noise from the cases' seeds, for instance stored by the published code.

        Raises:
            ImageError: sides that the networks do not take.
        """
        import torch

        self._check_size(*batch.lq.shape[-2:])
        if not len(batch):
            return torch.zeros_like(batch.lq)
        with torch.no_grad():
            made = self.posterior_mean(batch.lq)
            if self.output == "restored":
                for step in self.flow(self.source(made, self.draw(batch) if draw is None else draw)):
                    made = step.state
            return made.clamp(0.0, 1.0).cpu()

    def _check_size(self, height: int, width: int) -> None:
        rows, columns = self.config.units
        if height % rows or width % columns:
            units = str(rows) if rows == columns else f"{rows} (height) and {columns} (width)"
            raise ImageError(f"pmrf takes images whose sides are multiples of {units}, not {width}x{height}")
        if not self.config.hdit.fits(height, width):
            raise ImageError(f"pmrf: an image of {width}x{height} is smaller than its attention's neighbourhood")


def _first(*values: float | None) -> float:
    return next(float(value) for value in values if value is not None)
