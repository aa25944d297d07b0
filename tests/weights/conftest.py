"""No weights of this machine's user."""

import pytest


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch, tmp_path):
    for name in ("FFHQREF_OFFLINE", "HF_HUB_OFFLINE", "FFHQREF_WEIGHTS", "TORCH_HOME", "INSIGHTFACE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
