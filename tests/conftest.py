"""Shared by all tests: where the development data lies, and skips that say why."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .second_device import SecondDevice

REPOSITORY = Path(__file__).parent.parent
SHARED = REPOSITORY.parent / "shared"
SMALL_GOLDEN = REPOSITORY / "tests" / "golden"
"""The golden set that travels with the repository; made by make.py beside it."""
GOLDEN = Path(os.environ.get("FFHQREF_GOLDEN") or SHARED / "golden")
if not GOLDEN.is_dir():
    GOLDEN = SMALL_GOLDEN
GOLDEN_IMAGES = REPOSITORY if GOLDEN.resolve() == SMALL_GOLDEN else SHARED
"""What paths of images in a golden set are relative to."""

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("FFHQREF_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
if "PYTEST_XDIST_WORKER" in os.environ:  # one thread a worker: four of each on four cores are ten times slower
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from ffhqref.engine.worker import keep_freed_memory

    keep_freed_memory()

# Started in the background of a script, the suite and its children would ignore Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give each worker one long stretch of tests: handed out singly, tests build the fixtures of a module in each."""
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Let tests that ask for ``cuda`` run on a GPU, or where there is none on the second device; their name says it."""
    if "cuda" in metafunc.fixturenames:
        import torch

        metafunc.parametrize("cuda", ["gpu" if torch.cuda.is_available() else "second-device"], indirect=True)


@pytest.fixture
def cuda(request: pytest.FixtureRequest) -> str:
    """The name of a CUDA device: a GPU's, or that of the second device (tests/second_device.py) in its place."""
    if request.param == "second-device":
        request.getfixturevalue("second_device")
    return "cuda"


@pytest.fixture
def make_second_device() -> Callable[..., AbstractContextManager[SecondDevice]]:
    """What puts the second device of tests/second_device.py into torch, where it can be put."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("the second device stands in for CUDA, and there is a GPU")
    if torch.version.cuda is not None or not hasattr(torch._C, "_acc"):
        pytest.skip("the second device was made for torch 2.13 without CUDA, and tried with no other build")
    from .second_device import second_device as device

    return device


@pytest.fixture
def second_device(make_second_device: Callable[..., AbstractContextManager[SecondDevice]]) -> Iterator[SecondDevice]:
    """The second device, under the name of CUDA."""
    with make_second_device() as made:
        yield made


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of development data, which a user does not have."""
    if not SHARED.is_dir():
        pytest.skip(f"no development data at {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of golden outputs of published code."""
    return GOLDEN


@pytest.fixture(scope="session")
def sample_folder() -> Path:
    """The embedded sample's images."""
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
