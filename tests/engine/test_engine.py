"""Engines and the journal: same results in the same order, whatever happens in between."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffhqref.core.errors import FfhqrefError
from ffhqref.core.hashing import content_key
from ffhqref.engine import Journal, LocalEngine, Stage, run_stage
from ffhqref.engine.journal import _checks

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Square(Stage[dict, dict]):
    """Squares numbers; counts its calls."""

    name, version, batch_size = "square", "1", 3

    def __init__(self) -> None:
        self.calls = 0
        self.set_up = 0
        self.lost: set[int] = set()

    def key(self, row):
        return content_key(row["x"])

    def setup(self):
        self.set_up += 1

    def intact(self, row, result):
        return row["x"] not in self.lost

    def process(self, rows):
        self.calls += len(rows)
        return [{"y": row["x"] ** 2, "v": np.full(3, row["x"], np.float32)} for row in rows]


def values(results):
    return [result["y"] for result in results]


@settings(max_examples=30, deadline=None)
@given(first=st.lists(st.integers(0, 30)), second=st.lists(st.integers(0, 30)))
def test_known_rows_are_not_computed_again(tmp_path_factory, first, second):
    folder = tmp_path_factory.mktemp("j")
    stage = Square()
    rows = [{"x": x} for x in first]
    assert values(run_stage(stage, rows, engine=LocalEngine(1), journal_dir=folder)) == [x * x for x in first]
    assert stage.calls == len(set(first))
    again = run_stage(stage, [{"x": x} for x in second], engine=LocalEngine(1), journal_dir=folder)
    assert values(again) == [x * x for x in second]
    assert stage.calls == len(set(first) | set(second))


def test_nothing_is_loaded_when_there_is_nothing_to_do(tmp_path):
    rows = [{"x": x} for x in range(7)]
    run_stage(Square(), rows, engine=LocalEngine(1), journal_dir=tmp_path)
    idle = Square()
    assert values(run_stage(idle, rows, engine=LocalEngine(1), journal_dir=tmp_path)) == [x * x for x in range(7)]
    assert idle.set_up == 0


def test_a_result_that_no_longer_holds_is_made_again(tmp_path):
    stage = Square()
    rows = [{"x": x} for x in range(5)]
    run_stage(stage, rows, engine=LocalEngine(1), journal_dir=tmp_path)
    stage.lost = {3}
    run_stage(stage, rows, engine=LocalEngine(1), journal_dir=tmp_path)
    assert stage.calls == 6


def test_workers_give_the_same_results_in_the_same_order(tmp_path):
    rows = [{"x": x} for x in range(20)]
    alone = run_stage(Square(), rows, engine=LocalEngine(1), journal_dir=tmp_path / "1")
    spread = run_stage(Square(), rows, engine=LocalEngine(3), journal_dir=tmp_path / "3")
    assert values(alone) == values(spread)
    assert all(np.array_equal(a["v"], b["v"]) for a, b in zip(alone, spread, strict=True))


class Alone(Square):
    """Tells which process each row was done in, and wants to be alone."""

    batch_size, one_at_a_time = 1, True

    def process(self, rows):
        return [{"y": os.getpid()} for _ in rows]


class Grouped(Square):
    """Wants odd and even numbers apart."""

    batch_size = 2

    def group(self, row):
        return str(row["x"] % 2)

    def process(self, rows):
        return [{"y": row["x"], "company": [other["x"] for other in rows]} for row in rows]


def test_a_stage_that_wants_to_be_alone_runs_in_one_process(tmp_path):
    engine = LocalEngine(2)
    results = run_stage(Alone(), [{"x": x} for x in range(6)], engine=engine, journal_dir=tmp_path)
    assert set(values(results)) == {os.getpid()}
    engine.close()


def test_rows_of_a_group_share_batches_and_the_order_of_results_stays(tmp_path):
    results = run_stage(Grouped(), [{"x": x} for x in range(4)], engine=LocalEngine(1), journal_dir=tmp_path)
    assert values(results) == [0, 1, 2, 3]
    assert [result["company"] for result in results] == [[0, 2], [1, 3], [0, 2], [1, 3]]


def test_arrays_survive_the_journal_bit_for_bit(tmp_path):
    array = np.array([[1e-30, -0.0], [np.nan, 3.4e38]], np.float32)
    with Journal(tmp_path / "j", dict) as journal:
        journal.add({"k": {"a": array, "n": None, "f": 0.1, "s": "ü\n"}})
    with Journal(tmp_path / "j", dict) as journal:
        found = journal.get("k")
    assert found is not None
    assert found["a"].tobytes() == array.tobytes()
    assert (found["n"], found["f"], found["s"]) == (None, 0.1, "ü\n")


def test_a_flipped_bit_anywhere_in_a_journal_is_told_and_costs_its_lines_only(tmp_path, caplog):
    path = tmp_path / "j"
    known = {str(index): {"y": index * 1.5, "v": np.full(2, index, np.float32), "s": None} for index in range(4)}
    with Journal(path, dict) as journal:
        journal.add(known)
    whole = path.read_bytes()
    for place in range(len(whole) * 8):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        caplog.clear()
        with Journal(path, dict) as journal:
            found = {key: journal.get(key) for key in known}
        assert "computed again" in caplog.text
        kept = {key: result for key, result in found.items() if result is not None}
        assert len(kept) >= 2  # a lost end of line costs two
        assert all(result["y"] == known[key]["y"] for key, result in kept.items())
        assert all((result["v"] == known[key]["v"]).all() for key, result in kept.items())


@pytest.mark.parametrize("line", [b"{}", b"[]", b"[" * 100_000, b'{"key":"0","result":{"y":9}}', b"\xff\x00", b""])
def test_a_line_that_no_journal_wrote_is_told_and_left_out(tmp_path, caplog, line):
    with Journal(tmp_path / "j", dict) as journal:
        journal.add({"0": {"y": 1}})
    with (tmp_path / "j").open("ab") as stream:
        stream.write(line + b"\n")
    with Journal(tmp_path / "j", dict) as journal:
        assert journal.get("0") == {"y": 1}
    assert "1 damaged" in caplog.text


def test_a_journal_that_is_a_link_is_not_written_through(tmp_path):
    (tmp_path / "mine").write_bytes(b"private\n")
    (tmp_path / "j").symlink_to(tmp_path / "mine")
    with pytest.raises(FfhqrefError, match="link"):
        Journal(tmp_path / "j", dict)
    assert (tmp_path / "mine").read_bytes() == b"private\n"


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(1, 200))
def test_a_torn_end_costs_only_the_torn_line(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("j") / "j"
    with Journal(path, dict) as journal:
        for index in range(6):
            journal.add({str(index): {"y": index}})
    whole = path.read_bytes()
    cut = min(cut, len(whole))
    path.write_bytes(whole[:-cut])
    lines = whole[:-cut].count(b"\n")
    with Journal(path, dict) as journal:
        assert len(journal) == lines
        journal.add({"new": {"y": 99}})
    with Journal(path, dict) as journal:
        assert [journal.get(str(index)) for index in range(lines)] == [{"y": index} for index in range(lines)]
        assert journal.get("new") == {"y": 99}


@pytest.mark.parametrize(
    "bad",
    [
        '{"key":"1","result":3}',
        '{"key":"1","result":{"y":{"float32":"AAA","shape":[1]}}}',
        '{"key":"1","result":{"y":{"float32":7,"shape":[1]}}}',
        '{"key":["1"],"result":{}}',
        "[1]",
        "3",
        '{"key":"1"',
        "\x00\x00",
        "",
    ],
)
def test_a_damaged_line_costs_its_own_result_only(tmp_path, bad):
    path = tmp_path / "j"
    with Journal(path, dict) as journal:
        for index in range(3):
            journal.add({str(index): {"y": index}})
    lines = path.read_text().splitlines()
    lines[1] = bad
    path.write_text("\n".join(lines) + "\n")
    with Journal(path, dict) as journal:
        assert [journal.get(str(index)) for index in range(3)] == [{"y": 0}, None, {"y": 2}]
        journal.add({"1": {"y": 1}})
    with Journal(path, dict) as journal:
        assert [journal.get(str(index)) for index in range(3)] == [{"y": index} for index in range(3)]


def test_workers_die_with_a_killed_parent(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent("""
        import os, sys, time
        from ffhqref.engine import LocalEngine, Stage, run_stage

        class Sleep(Stage[dict, dict]):
            name, version, batch_size = "sleep", "1", 1
            def key(self, row): return str(row["x"])
            def setup(self):
                with open(sys.argv[1], "a") as stream: stream.write(f"{os.getpid()}\\n")
            def process(self, rows):
                time.sleep(60)
                return [{} for _ in rows]

        if __name__ == "__main__":
            run_stage(Sleep(), [{"x": x} for x in range(2)], engine=LocalEngine(2), journal_dir=sys.argv[2])
        """)
    )
    pids = tmp_path / "pids"
    parent = subprocess.Popen([sys.executable, str(script), str(pids), str(tmp_path / "j")])
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not pids.exists() or len(pids.read_text().split()) < 2):
        time.sleep(0.1)
    workers = [int(pid) for pid in pids.read_text().split()]
    assert len(workers) == 2
    parent.send_signal(signal.SIGKILL)
    parent.wait()

    def alive(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"

    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(alive(pid) for pid in workers):
        time.sleep(0.2)
    assert not any(alive(pid) for pid in workers)


def test_an_exception_in_a_worker_reaches_the_caller(tmp_path):
    class Broken(Square):
        def process(self, rows):
            raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        run_stage(Broken(), [{"x": 1}, {"x": 2}], engine=LocalEngine(1), journal_dir=tmp_path)


def test_a_worker_keeps_the_memory_it_frees():
    """By page faults: a block that is freed and asked for again is not cleared again by the system."""
    program = """if True:
        import resource
        from ffhqref.engine.worker import keep_freed_memory

        def faults():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(20):
                bytearray(b"x") * (48 << 20)
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

        faults()
        print(faults(), keep_freed_memory(), faults() and faults())
    """
    before, kept, after = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    if kept != "True":
        pytest.skip("no glibc here")
    assert int(after) < int(before) / 100


@dataclass(frozen=True)
class Typed:
    name: str
    count: int | None = None
    score: float | None = None
    ok: bool | None = None
    parts: list[float] | None = None
    vector: NDArray[np.float32] | None = None


GOOD = {"name": "a", "count": 3, "score": 1.5, "ok": True, "parts": [1.0, 2], "vector": np.ones(2, np.float32)}


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": 5}, {"name": None}, {"name": ["a"]}, {"count": "3"}, {"count": 1.5}, {"count": True}, {"score": "1.5"},
        {"score": {}}, {"ok": 1}, {"ok": "yes"}, {"parts": 5}, {"parts": ["x"]}, {"parts": [None]}, {"vector": [1.0]},
        {"vector": "x"}, {"name": {"float32": "AACAPw==", "shape": [1]}}, {"other": 1},
    ],
)  # fmt: skip
def test_a_value_of_another_kind_in_a_journal_is_computed_again(tmp_path, wrong):
    with Journal(tmp_path / "j.jsonl", dict) as journal:  # it writes what it is given
        journal.add({"good": GOOD, "bad": {**GOOD, **wrong}})
    with Journal(tmp_path / "j.jsonl", Typed) as journal:
        found = journal.get("good")
        assert found is not None
        assert (found.name, found.count, found.score, found.ok, found.parts) == ("a", 3, 1.5, True, [1.0, 2])
        assert journal.get("bad") is None


def test_the_kinds_of_every_built_in_result_are_known():
    import ffhqref

    root = Path(ffhqref.__file__).parent
    for path in sorted(root.rglob("*.py")):
        if "(Stage[" in path.read_text() or "Stage[" in path.read_text():
            importlib.import_module(".".join(path.relative_to(root.parent).with_suffix("").parts))
    todo, seen = [Stage], set()
    while todo:
        for kind in todo.pop().__subclasses__():
            todo.append(kind)
            if kind.__module__.startswith("ffhqref.") and is_dataclass(kind.result_type):
                seen.add(kind.result_type)
                assert set(_checks(kind.result_type)) == {field.name for field in fields(kind.result_type)}
    assert len(seen) > 10


class OnGpu(Stage[dict, dict]):
    """Tells which GPU its process sees."""

    name, gpus = "on-gpu", 1.0

    def key(self, row):
        return content_key(row)

    def process(self, rows):
        time.sleep(0.1)
        return [{"x": row["x"], "gpu": os.environ.get("CUDA_VISIBLE_DEVICES")} for row in rows]


@pytest.mark.parametrize(
    ("options", "stage_has", "seen"),
    [
        ({}, {}, {"2", "GPU-5"}),
        ({"gpus": 1}, {}, {None}),
        ({}, {"any_gpu": False}, {None}),  # device=cuda:1
        ({}, {"one_at_a_time": True}, {"2", "GPU-5"}),  # one process for each GPU
        ({}, {"gpus": 0.0}, {None}),
    ],
)
def test_all_gpus_of_a_machine_work_unless_told_otherwise(tmp_path, monkeypatch, options, stage_has, seen):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("ffhqref.engine.local.visible_gpus", lambda: ["2", "GPU-5"])
    stage = OnGpu()
    for name, value in stage_has.items():
        setattr(stage, name, value)
    engine = LocalEngine(workers=1, **options)
    try:
        results = run_stage(stage, [{"x": x} for x in range(24)], engine=engine, journal_dir=tmp_path)
    finally:
        engine.close()
    assert [result["x"] for result in results] == list(range(24))
    assert {result["gpu"] for result in results} == seen
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


def test_no_gpu_is_no_number_of_gpus():
    with pytest.raises(FfhqrefError, match=r"engine\.gpus=0: expected 1 or more"):
        LocalEngine(gpus=0)
