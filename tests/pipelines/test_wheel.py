"""A built wheel carries everything and puts nothing of ours at the top of site-packages."""

from __future__ import annotations

import subprocess
import sys
import zipfile

import pytest

from ..command import REPOSITORY


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(out), str(REPOSITORY)]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_the_top_level_is_ours_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"ffhqref"}


def test_every_file_a_run_needs_is_inside(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, packed in (("conf", "ffhqref/conf"), ("pipelines", "ffhqref/pipelines"), ("ffhqref", "ffhqref")):
        for path in (REPOSITORY / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert f"{packed}/{path.relative_to(REPOSITORY / folder).as_posix()}" in names


def test_the_installed_wheel_runs_in_an_empty_folder(wheel, tmp_path):
    """Unpacked where no checkout is in sight; the packages it needs are this environment's."""
    site, cwd = tmp_path / "site", tmp_path / "cwd"
    cwd.mkdir()
    zipfile.ZipFile(wheel).extractall(site)
    code = (
        f"import sys; sys.path = [{str(site)!r}] + [p for p in sys.path if p != {str(REPOSITORY)!r}];"
        "import ffhqref.cli.main; assert ffhqref.cli.main.__file__.startswith(sys.path[0]), ffhqref.cli.main.__file__;"
        "sys.exit(ffhqref.cli.main.main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "build", "engine.workers=0"], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (cwd / "workspace" / "tables" / "references.parquet").is_file()
    assert "pairwise F1 0.9" in done.stderr
