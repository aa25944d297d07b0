"""The Ray engine on a cluster of two nodes: the results of one machine, whatever happens to the workers."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from ffhqref.core.errors import ConfigError, DependencyError, EngineError, WeightsError
from ffhqref.engine import Journal, LocalEngine, RayEngine, run_stage

STAGES = """
import errno, os, time
from pathlib import Path
import numpy as np
from ffhqref.core.errors import WeightsError
from ffhqref.engine import Stage

class Base(Stage[dict, dict]):
    name, version, batch_size = "stage", "1", 1
    def __init__(self, folder): self.folder = Path(folder)
    def key(self, row): return str(row["x"])
    def process(self, rows): return [self.one(row["x"]) for row in rows]
    def note(self, x):
        with (self.folder / "log").open("a") as stream: stream.write(f"{os.getpid()} {x}\\n")
    def one(self, x):
        self.note(x)
        return {"y": x * x, "v": np.float32([x, -0.0, float("nan")]) / np.float32(3)}

class Batches(Base):
    batch_size = 3

class Where(Base):
    def one(self, x):
        import ray
        node = ray.get_runtime_context().get_node_id()
        (self.folder / node).touch()
        end = time.monotonic() + 60
        while len(list(self.folder.glob("*"))) < 2 and time.monotonic() < end: time.sleep(0.05)
        facts = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "FFHQREF_TEST")}
        return {"node": node, "folder": os.getcwd(), **facts}

class OnGpu(Where):
    gpus = 1.0

class Alone(Base):
    one_at_a_time = True

class Waits(Base):
    def one(self, x):
        self.note(x)
        end = time.monotonic() + 60
        while not (self.folder / "go").exists() and time.monotonic() < end: time.sleep(0.05)
        return {"y": x * x}

class Deadly(Base):
    batch_size = 4
    def one(self, x):
        if x == 5 and not (self.folder / "healed").exists(): os._exit(1)
        return super().one(x)

class DeadlyButTold(Deadly):
    batch_size = 1
    def failure(self, row, reason): return {"y": None, "error": reason}

class NoWeights(Base):
    def setup(self): raise WeightsError("weights.pth is not there; fetch it")

class FullDisk(Base):
    def one(self, x): raise OSError(errno.ENOSPC, "No space left on device", "out.png")

class DiesAtOnce(Base):
    def setup(self): os._exit(1)
"""


@pytest.fixture(scope="module")
def stages(tmp_path_factory):
    """A module that only this process can find, like a plug-in that lies beside the user's script."""
    folder = tmp_path_factory.mktemp("plug in")
    (folder / "cluster_stages.py").write_text(STAGES)
    sys.path.insert(0, str(folder))
    cluster_stages = importlib.import_module("cluster_stages")

    yield cluster_stages
    sys.path.remove(str(folder))
    del sys.modules["cluster_stages"]


@pytest.fixture(scope="module")
def engine(ray_cluster, stages, tmp_path_factory):
    """An engine on both nodes that tries a batch twice."""
    os.environ["FFHQREF_TEST"] = "seen"
    made = RayEngine(ray_cluster, retries=1, root=tmp_path_factory.mktemp("root"))
    yield made
    made.close()
    del os.environ["FFHQREF_TEST"]


def rows(count):
    return [{"x": x} for x in range(count)]


def done_in(folder):
    """Return what was computed, in the order of the stage's log."""
    log = folder / "log"
    return [int(line.split()[1]) for line in log.read_text().splitlines()] if log.exists() else []


def test_an_address_without_a_cluster_is_one_line(tmp_path):
    with pytest.raises(EngineError, match=r"no Ray cluster at localhost:9 .*ray start --head"):
        RayEngine("localhost:9", root=tmp_path).connect()


def test_results_are_those_of_this_machine_bit_for_bit_and_in_order(engine, stages, tmp_path):
    spread = run_stage(stages.Batches(tmp_path), rows(20), engine=engine, journal_dir=tmp_path / "ray")
    alone = run_stage(stages.Batches(tmp_path), rows(20), engine=LocalEngine(1), journal_dir=tmp_path / "local")
    assert [result["y"] for result in spread] == [x * x for x in range(20)]
    for ours, theirs in zip(spread, alone, strict=True):
        assert ours["y"] == theirs["y"]
        assert ours["v"].dtype == theirs["v"].dtype
        assert ours["v"].tobytes() == theirs["v"].tobytes()
    lines = [sorted((tmp_path / name / "stage.jsonl").read_bytes().splitlines()) for name in ("ray", "local")]
    assert lines[0] == lines[1]


def test_every_node_works_with_the_environment_of_this_process(engine, stages, tmp_path):
    (tmp_path / "n").mkdir()
    found = run_stage(stages.Where(tmp_path / "n"), rows(6), engine=engine, journal_dir=tmp_path)
    assert len({result["node"] for result in found}) == 2
    assert {result["folder"] for result in found} == {str(Path.cwd())}
    assert {result["FFHQREF_TEST"] for result in found} == {"seen"}
    assert {result["OMP_NUM_THREADS"] for result in found} == {"1"}


def test_a_stage_on_gpus_gets_one_worker_for_each(engine, stages, tmp_path):
    assert engine.gpus == 2
    (tmp_path / "n").mkdir()
    found = run_stage(stages.OnGpu(tmp_path / "n"), rows(6), engine=engine, journal_dir=tmp_path)
    assert len({result["node"] for result in found}) == 2
    assert {result["CUDA_VISIBLE_DEVICES"] for result in found} == {"0"}


def test_a_stage_that_goes_one_at_a_time_gets_one_worker_in_all(engine, stages, tmp_path):
    run_stage(stages.Alone(tmp_path), rows(12), engine=engine, journal_dir=tmp_path)
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 12
    assert len({line.split()[0] for line in lines}) == 1


def test_killing_a_worker_changes_nothing(engine, stages, tmp_path):
    stage = stages.Waits(tmp_path)
    results = []
    run = threading.Thread(
        target=lambda: results.extend(run_stage(stage, rows(6), engine=engine, journal_dir=tmp_path / "j"))
    )
    run.start()
    deadline = time.monotonic() + 60
    while len(done_in(tmp_path)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    pid, victim = map(int, (tmp_path / "log").read_text().splitlines()[0].split())
    os.kill(pid, signal.SIGKILL)
    (tmp_path / "go").touch()
    run.join(60)
    assert [result["y"] for result in results] == [x * x for x in range(6)]
    assert done_in(tmp_path).count(victim) == 2  # it was at this one, which went to another worker
    assert sorted(set(done_in(tmp_path))) == list(range(6))


def test_a_deadly_row_is_told_and_takes_no_other_along_and_another_engine_goes_on(engine, stages, tmp_path):
    journal = tmp_path / "j"
    with pytest.raises(EngineError, match=r"1 rows left over.*'x': 5.*ended each time.*all others are done"):
        run_stage(stages.Deadly(tmp_path), rows(10), engine=engine, journal_dir=journal)
    with Journal(journal / "stage.jsonl", dict) as known:
        assert {str(x) for x in range(10) if known.get(str(x))} == {str(x) for x in range(10) if x != 5}
    (tmp_path / "healed").touch()
    (tmp_path / "log").unlink()
    finished = run_stage(stages.Deadly(tmp_path), rows(12), engine=LocalEngine(1), journal_dir=journal)
    assert [result["y"] for result in finished] == [x * x for x in range(12)]
    assert done_in(tmp_path) == [5, 10, 11]  # and nothing twice


def test_a_class_that_no_worker_could_import_is_sent_along(engine, stages, tmp_path):
    class OfANotebook(stages.Base):
        def one(self, x):
            return {"y": 3 * x}

    found = run_stage(OfANotebook(tmp_path), rows(3), engine=engine, journal_dir=tmp_path)
    assert [result["y"] for result in found] == [0, 3, 6]


def test_what_is_done_here_is_not_done_again_on_the_cluster(engine, stages, tmp_path):
    run_stage(stages.Batches(tmp_path), rows(7), engine=LocalEngine(1), journal_dir=tmp_path / "j")
    finished = run_stage(stages.Batches(tmp_path), rows(9), engine=engine, journal_dir=tmp_path / "j")
    assert [result["y"] for result in finished] == [x * x for x in range(9)]
    assert sorted(done_in(tmp_path)) == list(range(9))


def test_a_deadly_row_becomes_a_failure_where_the_stage_has_a_form_for_it(engine, stages, tmp_path):
    found = run_stage(stages.DeadlyButTold(tmp_path), rows(8), engine=engine, journal_dir=tmp_path / "j")
    assert [result["y"] for result in found] == [None if x == 5 else x * x for x in range(8)]
    assert "ended each time it was tried" in found[5]["error"]


def test_errors_arrive_as_what_they_are(engine, stages, tmp_path):
    with pytest.raises(WeightsError, match=r"weights\.pth is not there"):
        run_stage(stages.NoWeights(tmp_path), rows(2), engine=engine, journal_dir=tmp_path)
    with pytest.raises(OSError, match="No space left") as caught:
        run_stage(stages.FullDisk(tmp_path), rows(2), engine=engine, journal_dir=tmp_path)
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, "out.png")


def test_workers_that_end_while_they_load_are_told(engine, stages, tmp_path):
    with pytest.raises(EngineError, match="ended before they were ready"):
        run_stage(stages.DiesAtOnce(tmp_path), rows(1), engine=engine, journal_dir=tmp_path)


def test_a_place_that_nodes_do_not_see_is_one_line(ray_cluster, engine, tmp_path):
    engine.connect()  # the connection of this process is kept
    for name, options in {"faces": {"places": [tmp_path / "faces"]}, "own": {"root": tmp_path / "own"}}.items():
        (tmp_path / "own").mkdir(exist_ok=True)
        other = RayEngine(ray_cluster, **options)
        if name == "own":  # what a node with another disk under this path sees
            other._site = lambda made=other._site: _without_marker(made())
        with pytest.raises(EngineError, match=rf"node .* does not see .*{name}; put it on a file system") as caught:
            other.connect()
        assert "\n" not in str(caught.value)
        other.close()
        assert not list((tmp_path / "own").iterdir())


def _without_marker(site):
    Path(site.places[0]).unlink(missing_ok=True)
    return site


def test_nodes_with_other_packages_are_refused(ray_cluster, engine, monkeypatch, tmp_path):
    engine.connect()
    monkeypatch.setattr("ffhqref.store.tables.package_versions", lambda: {"numpy": "1.2.3+local"})
    with pytest.raises(EngineError, match=rf"node .* has {np.__version__} numpy, this process 1\.2\.3"):
        RayEngine(ray_cluster, root=tmp_path).connect()


def test_ray_is_not_needed_before_there_is_work_and_its_absence_is_told(stages, monkeypatch, tmp_path):
    run_stage(stages.Batches(tmp_path), rows(4), engine=LocalEngine(1), journal_dir=tmp_path)
    monkeypatch.setitem(sys.modules, "ray", None)
    run_stage(stages.Batches(tmp_path), rows(4), engine=RayEngine(), journal_dir=tmp_path)
    with pytest.raises(DependencyError, match=r"pip install 'ffhqref\[ray\]'"):
        run_stage(stages.Batches(tmp_path), rows(5), engine=RayEngine(), journal_dir=tmp_path)


@pytest.mark.parametrize(
    "options",
    [{"workers": 0}, {"workers": True}, {"cpus_per_worker": 0}, {"retries": -1}, {"address": "ray://head:10001"}],
)
def test_wrong_options_are_refused_at_once(options):
    (name,) = options
    with pytest.raises(ConfigError, match=rf"engine\.{name}="):
        RayEngine(**options)


def test_a_cluster_of_this_machine_is_closed_to_others(monkeypatch, tmp_path):
    from ffhqref.engine import cluster

    given = {}

    class Fake:
        is_initialized = staticmethod(lambda: False)
        init = staticmethod(given.update)
        shutdown = staticmethod(lambda: None)

    (tmp_path / ".ray").mkdir()
    token = tmp_path / ".ray" / "auth_token"
    token.write_text("0" * 64)
    token.chmod(0o644)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(cluster, "_ray", lambda: Fake)
    with contextlib.closing(RayEngine()) as made:
        made.connect()
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
    assert given["include_dashboard"] is False
    assert Path(given["_temp_dir"]).parent.stat().st_mode & 0o077 == 0
    assert token.stat().st_mode & 0o777 == 0o600
