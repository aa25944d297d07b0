"""The small world that FaceMe's training is tested in."""

from __future__ import annotations

import pytest
import torch

from .faceme_training_world import World


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    """Tests take copies of its networks and leave its files as they are."""
    return World(tmp_path_factory.mktemp("world"))
