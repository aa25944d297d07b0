"""Where files of the package lie, in a wheel or in a checkout."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent.parent
SAMPLE_ROOT = PACKAGE / "datasets" / "sample"
"""The embedded sample's images."""


def conf_folder() -> Path:
    """Return the folder of the Hydra configs."""
    packaged = PACKAGE / "conf"
    return packaged if packaged.is_dir() else PACKAGE.parent / "conf"
