"""The command line: help at once, one clear line for what is wrong."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from ..command import REPOSITORY


def one_line(done: subprocess.CompletedProcess[str], status: int = 2) -> str:
    """Return the single line of standard error of a command that failed as it should."""
    assert done.returncode == status, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("ffhqref: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--cfg", "job"], ["run", "--help"], ["run", "rot=x"]])
def test_quick_answers_load_nothing_heavy(arguments):
    """What keeps them quick; benchmarks/startup.py times them."""
    code = (
        "import atexit, sys\n"
        "heavy = ('torch', 'pandas', 'pyarrow', 'sklearn', 'scipy', 'cv2', 'dlib', 'rich')\n"
        "atexit.register(lambda: print('HEAVY', [name for name in heavy if name in sys.modules]))\n"
        f"from ffhqref.cli.main import main; sys.exit(main({arguments!r}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == (2 if "rot=x" in arguments else 0), done.stderr
    assert "HEAVY []" in done.stdout


def test_help_names_every_pipeline(ffhqref):
    from ffhqref.cli.main import PIPELINES

    done = ffhqref("--help")
    assert all(name in done.stdout for name in PIPELINES)
    for name in PIPELINES:
        assert (REPOSITORY / "pipelines" / f"{name}.py").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rum"], "unknown pipeline 'rum'. Did you mean 'run'?"),
        (["run", "rot=x"], "unknown key 'rot'. Did you mean 'root'?"),
        (["run", "build.max_distanc=0.1"], "unknown key 'build.max_distanc'. Did you mean 'max_distance'?"),
        (["run", "restorer=[lq,bicubik]"], "unknown restorer 'bicubik'. Did you mean 'bicubic'?"),
        (["run", "metric=[psnrr]"], "unknown metric 'psnrr'. Did you mean 'psnr'?"),
        (["run", "benchmark=[modrate]"], "unknown benchmark 'modrate'. Did you mean 'moderate'?"),
        (["run", "dataset=smaple"], "unknown dataset 'smaple'. Did you mean 'sample'?"),
        (["run", "restorers=[lq]"], "unknown key 'restorers'. Did you mean 'restorer'?"),
        (["run", "seed=soon"], "seed=soon: expected a whole number"),
        (["run", "limit=0"], "limit=0: expected a whole number of at least 1"),
        (["run", "engine.workers=-2"], "engine.workers=-2"),
        (["run", "embedder.max_distance=3"], "max_distance"),
        (["run", "benchmark.moderate.references=0"], "references=0"),
        (["run", "benchmark.moderate.split=tst"], "Did you mean 'test'"),
        (["run", "benchmark.moderate.degradation=moderat"], "Did you mean 'moderate'"),
        (["run", "dataset=folder"], "dataset.path="),
        (["run", "embedder=onnx"], "embedder.path="),
        (["run", "device=cuda:9"], "device"),
        (["run", "restorer=null"], "restorer=null: expected a name, or a list"),
        (["run", "dataset=null"], "Known: celeba_hq,"),
        (["run", "embedder=null"], "embedder=null: expected a name"),
        (["run", "engine=null"], "engine=null: expected a name"),
        (["run", 'dataset.path="a b'], """needs quotes of its own: 'dataset.path="a b"'"""),
        (["run", "dataset.path=/faces (1)"], """cannot read dataset.path=/faces (1): a value with"""),
        (["run", "seed"], "cannot read 'seed': expected key=value"),
        (["report"], "does not exist yet"),
        (["score"], "does not exist yet"),
    ],
)
def test_mistakes_get_one_clear_line(ffhqref, arguments, said):
    assert said in one_line(ffhqref(*arguments))


def test_a_dataset_folder_that_is_absent_or_empty(ffhqref, tmp_path):
    assert "no such folder" in one_line(ffhqref("run", "dataset=folder", f"dataset.path={tmp_path}/absent"))
    (tmp_path / "empty").mkdir()
    assert "no image" in one_line(ffhqref("run", "dataset=folder", f"dataset.path={tmp_path}/empty"))


def test_home_is_understood_and_told(ffhqref, tmp_path):
    home = {"HOME": str(tmp_path / "home")}
    said = one_line(ffhqref("run", "dataset=folder", "dataset.path=~/faces", env=home))
    assert f"no such folder: {tmp_path}/home/faces" in said


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (IsADirectoryError(errno.EISDIR, "Is a directory", "w/tables"), "Is a directory: w/tables"),
        (PermissionError(errno.EACCES, "Permission denied", "w/x.png"), "no access (Permission denied): w/x.png"),
        (OSError(errno.ENOSPC, "No space left on device"), "cannot write (No space left on device); make room"),
    ],
)
def test_what_the_system_refuses_is_one_line(error, said, monkeypatch, tmp_path, capsys):
    from ffhqref.cli import main as cli

    def execute(config):
        raise error

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(cli, "pipeline_module", lambda name: SimpleNamespace(execute=execute))
    assert cli.launch("run", ["seed=1"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert said in lines[0]


def test_a_defect_of_ours_keeps_its_traceback(monkeypatch, tmp_path):
    from ffhqref.cli import main as cli

    def execute(config):
        raise ValueError("a defect")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.setattr(cli, "pipeline_module", lambda name: SimpleNamespace(execute=execute))
    with pytest.raises(ValueError, match="a defect"):
        cli.launch("run", ["seed=1"])


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc, where nobody can make a folder")
def test_an_unwritable_root(ffhqref):
    assert "choose another with root=FOLDER" in one_line(ffhqref("run", "root=/proc/ffhqref"))


def test_a_mistake_is_found_before_any_work(ffhqref, tmp_path):
    """Nothing is computed when the last stage's config is wrong."""
    one_line(ffhqref("run", f"root={tmp_path}/w", "benchmark.moderate.degradation=moderat"))
    assert not (tmp_path / "w" / "tables" / "images.parquet").exists()


def test_two_runs_in_one_workspace_are_refused(ffhqref, tmp_path):
    import fcntl

    root = tmp_path / "w"
    root.mkdir()
    with (root / ".lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        stream.write("12345")
        stream.flush()
        assert "in use by process 12345" in one_line(ffhqref("build", f"root={root}"))
