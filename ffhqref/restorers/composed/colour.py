"""The restorer `colour_transfer`: another's result with the colours of its input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError, did_you_mean
from ffhqref.restorers.base import PartialResult, RestorationBatch, RestorerInfo
from ffhqref.restorers.colour import LEVELS, adain_transfer, wavelet_transfer
from ffhqref.restorers.composed.parts import Composed, make_part, result, run_part

if TYPE_CHECKING:
    import torch

KINDS = ("wavelet", "adain")


class ColourTransfer(Composed):
    """A restorer's result with the low frequencies (wavelet), or each channel's mean and deviation (AdaIN), of the LQ.

    Inside a `chain`, the colours are those of what the step before made, as in DiffBIR, whose colours come from its
    cleaner; around a `chain`, those of the LQ.

    Args:
        of: the restorer: its name, or options with ``name``.
        how: ``wavelet`` or ``adain``; see `ffhqref.restorers.colour`.
        levels: of the wavelet transfer.
        device: handed to the restorer.
        batch_size: see `Composed`.
    """

    info = RestorerInfo(
        name="colour_transfer", summary="a restorer's result in its input's colours", max_references=None,
        input_size=None, licence="that of its parts", verified_against="wavelets: SciPy; AdaIN: closed form",
    )  # fmt: skip
    """Of the kind; an instance's own follows from its parts."""

    def __init__(
        self, of: Any = None, how: str = "wavelet", levels: int = LEVELS, device: str = "cpu",
        batch_size: int | None = None,
    ) -> None:  # fmt: skip
        if how not in KINDS:
            raise ConfigError(f"colour_transfer: how={how}.{did_you_mean(str(how), KINDS)} Known: {', '.join(KINDS)}")
        if isinstance(levels, bool) or not isinstance(levels, int) or not 1 <= levels <= 8:
            raise ConfigError(f"colour_transfer: levels={levels}, expected a whole number from 1 to 8")
        part = make_part(of, "of", device)
        self.how, self.levels = how, levels
        own = {"how": how, "levels": levels if how == "wavelet" else None}
        super().__init__(
            [part], own, name="colour_transfer", summary=f"{part.name} with the input's colours ({how})",
            batch_size=batch_size,
        )  # fmt: skip

    def restore(self, batch: RestorationBatch) -> torch.Tensor | PartialResult:
        """Return float32 [B, 3, H, W] in 0..1."""
        made, reasons = run_part(self.parts[0], batch)
        lq = batch.lq.to(made)
        coloured = wavelet_transfer(made, lq, self.levels) if self.how == "wavelet" else adain_transfer(made, lq)
        return result(coloured.clamp(0.0, 1.0), reasons)
