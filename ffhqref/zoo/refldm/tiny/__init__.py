"""The restorer `refldm-tiny`: ReF-LDM in miniature, trained on a few hundred images, with its weights in the package.

A demonstration of the method and a test object, not a model to compare with: see the README beside this module.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ffhqref.zoo.refldm.restorer import RefLDMRestorer

WEIGHTS = Path(__file__).parent / "refldm_tiny.safetensors"
"""EMA weights of the U-Net and the first stage, float16, architecture inside (and beside it as config.yaml)."""

FACTS: dict[str, Any] = {
    "name": "refldm-tiny",
    "summary": "tiny demonstration of ReF-LDM at 64 pixels, weights in the package; not comparable with ReF-LDM",
    "input_size": None,
    "licence": "CC BY 4.0 (weights; derived from the Face Research Lab London Set); the implementation is Apache-2.0",
    "commercial_use": True,
    "trained_on": ("embedded sample: train and val", "Face Research Lab London Set"),
    "recognisers": (),
    "paper": None,
    "weights": (),
    "verified_against": "measured on the embedded sample, see ffhqref/zoo/refldm/tiny/README.md",
}


class RefLDMTiny(RefLDMRestorer):
    """ReF-LDM with the tiny weights: 64 pixels inside, about half a second a face on two CPU cores.

    The small network is weakest at the noisiest steps, so it starts later than ReF-LDM does; ``start_time=None`` with
    the same steps is the published way.

    Args:
        steps: nominal number of DDIM steps.
        spacing: ``uniform`` or ``uniform_trailing``.
        guidance_scale: of the references; 1 switches guidance off.
        max_references: the first so many of a case are used; None: all.
        start_time: see `RefLDMRestorer`.
        options: further ones of `RefLDMRestorer`.
    """

    info = replace(RefLDMRestorer.info, **FACTS)

    def __init__(
        self,
        *,
        steps: int = 10,
        spacing: str = "uniform",
        guidance_scale: float = 1.5,
        max_references: int | None = 5,
        start_time: int | None = 701,
        device: str = "auto",
        **options: Any,
    ) -> None:
        super().__init__(
            WEIGHTS,
            steps=steps,
            spacing=spacing,
            guidance_scale=guidance_scale,
            max_references=max_references,
            start_time=start_time,
            device=device,
            info=FACTS,
            **options,
        )
