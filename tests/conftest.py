"""Shared by all tests: where the development data lies, and skips that say why."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
SHARED = REPOSITORY.parent / "shared"

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("FFHQREF_OFFLINE", "1")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of development data, which a user does not have."""
    if not SHARED.is_dir():
        pytest.skip(f"no development data at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def golden(request: pytest.FixtureRequest) -> Path:
    """The folder of golden outputs of published code."""
    folder = Path(os.environ.get("FFHQREF_GOLDEN", SHARED / "golden"))
    if not folder.is_dir():
        pytest.skip(f"no golden outputs at {folder}; set FFHQREF_GOLDEN")
    return folder


@pytest.fixture(scope="session")
def sample_folder() -> Path:
    """The embedded sample's pictures."""
    return REPOSITORY / "ffhqref" / "datasets" / "sample"
