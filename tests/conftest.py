"""Shared by all tests: where the development data lies, and skips that say why."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
SHARED = REPOSITORY.parent / "shared"
GOLDEN = Path(os.environ.get("FFHQREF_GOLDEN", SHARED / "golden"))

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("FFHQREF_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
if "PYTEST_XDIST_WORKER" in os.environ:  # one thread a worker: four of each on four cores are ten times slower
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Started in the background of a script, the suite and its children would ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of development data, which a user does not have."""
    if not SHARED.is_dir():
        pytest.skip(f"no development data at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of golden outputs of published code."""
    if not GOLDEN.is_dir():
        pytest.skip(f"no golden outputs at {GOLDEN}; set FFHQREF_GOLDEN")
    return GOLDEN


@pytest.fixture(scope="session")
def sample_folder() -> Path:
    """The embedded sample's pictures."""
    return REPOSITORY / "ffhqref" / "datasets" / "sample"


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """The address of a Ray cluster of two nodes on this machine, each with one CPU and what it takes for a GPU."""
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "num_gpus": 1, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    cluster.add_node(**node)
    yield cluster.address
    cluster.shutdown()
