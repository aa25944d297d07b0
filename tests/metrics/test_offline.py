"""Offline, every name works from files or says in one line which file it lacks; nothing of others is run unasked."""

import importlib.util
import pickle
import socket

import pytest
import torch

from ffhqref.core.errors import ConfigError, FfhqrefError, WeightsError
from ffhqref.metrics import METRICS, MetricRuntime, make_metric
from ffhqref.metrics.dataset_metrics import DATASET_METRICS, dataset_metric_class
from ffhqref.restorers import RESTORERS, make_restorer


@pytest.fixture
def blocked(monkeypatch, tmp_path):
    """A machine without weights and without a network; return what was asked of the network all the same."""
    asked = []

    def refuse(*arguments, **_):
        asked.append(arguments)
        raise AssertionError(f"the network was used: {arguments}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    for name in ("HOME", "TORCH_HOME", "FFHQREF_WEIGHTS", "INSIGHTFACE_HOME", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("FFHQREF_OFFLINE", "1")
    return asked


def outcome(call):
    """Return the line in which something is refused, or None when it works."""
    try:
        call()
    except FfhqrefError as error:
        line = str(error)
    else:
        return None
    assert "\n" not in line
    return line


LACKS = "weights '|needs the package|needs |no such file|set |must|not on this machine|name"


@pytest.mark.parametrize("download", [False, True])
@pytest.mark.parametrize("name", sorted(METRICS))
def test_a_metric_works_or_says_what_it_lacks(blocked, name, download):
    line = outcome(lambda: make_metric(name, runtime=MetricRuntime(download=download)))
    assert line is None or any(words in line for words in LACKS.split("|")), line
    assert blocked == []


@pytest.mark.parametrize("name", sorted(DATASET_METRICS))
def test_a_set_metric_works_or_says_what_it_lacks(blocked, name):
    line = outcome(lambda: dataset_metric_class(name)(runtime=MetricRuntime(download=True)))
    assert line is None or "inception" in line or "not on this machine" in line, line
    assert blocked == []


@pytest.mark.parametrize("name", sorted(RESTORERS))
def test_a_restorer_works_or_says_what_it_lacks(blocked, name):
    line = outcome(lambda: make_restorer(name))
    assert line is None or any(words in line for words in LACKS.split("|")), line
    assert blocked == []


def test_the_losses_of_trainings_fetch_nothing(blocked):
    from ffhqref.metrics.perceptual import perceptual_loss

    assert "vgg16-397923af.pth" in outcome(lambda: perceptual_loss("vgg"))
    assert blocked == []


# pyiqa


def needs_pyiqa():
    if importlib.util.find_spec("pyiqa") is None:
        pytest.skip("pyiqa is not installed")


@pytest.mark.parametrize("name", ["qalign", "compare2score", "clipiqa", "liqe", "afine_nr", "topiq_nr", "fgresq"])
def test_what_pyiqa_loads_by_itself_is_refused_with_the_reason(blocked, name):
    needs_pyiqa()
    with pytest.raises(ConfigError, match=r"ffhqref cannot check.*allow_remote_code: true"):
        make_metric(f"pyiqa:{name}")
    with pytest.raises(ConfigError, match="cannot check"):
        make_metric(f"pyiqa:{name}", allow_remote_code="no")
    assert blocked == []


@pytest.mark.parametrize("name", ["clipiqa", pytest.param("topiq_nr", marks=pytest.mark.slow)])
def test_what_is_allowed_still_opens_no_socket_offline(blocked, name):
    needs_pyiqa()
    line = outcome(lambda: make_metric(f"pyiqa:{name}", allow_remote_code=True))
    assert f"pyiqa:{name} cannot be built on this machine" in line
    assert blocked == []


def controlled():
    from ffhqref.metrics.iqa import _CONTROLLED

    return sorted(_CONTROLLED)


@pytest.mark.slow
@pytest.mark.parametrize("name", controlled())
def test_a_metric_of_pyiqa_works_or_says_what_it_lacks(blocked, name):
    needs_pyiqa()
    line = outcome(lambda: make_metric(f"pyiqa:{name}"))
    assert line is None or "are not on this machine: put" in line, line
    assert blocked == []


def test_the_list_of_controlled_metrics_is_of_names_that_pyiqa_has():
    needs_pyiqa()
    from ffhqref.metrics.iqa import _pyiqa_configs

    assert set(controlled()) <= set(_pyiqa_configs())


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


def brisque(folder, content):
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(content, folder / "brisque_svm_weights.pth")


def test_pyiqa_reads_tensors_alone_and_the_bytes_that_were_hashed(blocked, tmp_path, monkeypatch):
    """It opens files with weights_only=False, after they were scanned: another file may lie there by then."""
    needs_pyiqa()
    from ffhqref.weights import fetch, files

    folder = tmp_path / "FFHQREF_WEIGHTS"
    brisque(folder, (torch.ones(1, 774), torch.ones(774, 36)))
    metric = make_metric("pyiqa:brisque")
    assert "brisque_svm_weights.pth@" in metric.signature
    real, found = files.require, []

    def swapped(*arguments, **named):
        found.append(real(*arguments, **named))
        brisque(folder, Evil(tmp_path / "ran"))
        return found[-1]

    monkeypatch.setattr(fetch, "require", swapped)
    with pytest.raises(WeightsError, match="changed since it was checked"):
        make_metric("pyiqa:brisque")
    monkeypatch.setattr(fetch, "require", real)
    files.verify("pyiqa-brisque", accept=True)
    with pytest.raises(WeightsError, match="holds more than tensors"):
        make_metric("pyiqa:brisque")
    with (folder / "brisque_svm_weights.pth").open("wb") as stream:
        pickle.dump(Evil(tmp_path / "ran"), stream)
    files.verify("pyiqa-brisque", accept=True)
    with pytest.raises(WeightsError):
        make_metric("pyiqa:brisque")
    assert not (tmp_path / "ran").exists()
