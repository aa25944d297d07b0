"""Where the config files lie, in a wheel or in a checkout."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent.parent


def conf_folder() -> Path:
    """Return the folder of the Hydra configs."""
    packaged = PACKAGE / "conf"
    return packaged if packaged.is_dir() else PACKAGE.parent / "conf"
