"""ReF-LDM natively: equal to the published model, faster, and trainable.

Hsiao et al., "ReF-LDM: A Latent Diffusion Model for Reference-based Face Image Restoration" (NeurIPS 2024).
``RefLDM`` is the model, ``RefLDMConfig`` its architecture; both are imported on first use, since they need torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ffhqref.zoo.refldm.config import RefLDMConfig
    from ffhqref.zoo.refldm.model import RefLDM

__all__ = ["RefLDM", "RefLDMConfig"]


def __getattr__(name: str) -> Any:
    if name == "RefLDM":
        from ffhqref.zoo.refldm.model import RefLDM

        return RefLDM
    if name == "RefLDMConfig":
        from ffhqref.zoo.refldm.config import RefLDMConfig

        return RefLDMConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
