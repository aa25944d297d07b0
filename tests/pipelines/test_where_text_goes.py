"""Text that a terminal cannot show, and readers that go away, end no run and give no traceback."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest
from rich.table import Table

from ffhqref.cli.main import guarded
from ffhqref.core.progress import Reporter, download_bar, show

from ..command import REPOSITORY

COMMAND = f"{sys.executable} -m ffhqref.cli.main"


def shell(line, **environment):
    """Run a line of a shell; return the status of its first command, what it wrote, and its standard error."""
    done = subprocess.run(
        ["bash", "-c", f"{line}; echo ${{PIPESTATUS[0]}} >&2"],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
        check=True,
    )
    *said, status = done.stderr.decode("utf-8", "replace").splitlines()
    return int(status), done.stdout, "\n".join(said)


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("list | head -1", 141),
        ("run --cfg job | head -1", 0),
        ("list >&-", 0),
        ("rum 2>&-", 2),
        ("rum 2>&1 >&- | cat", 2),
    ],
)
def test_a_reader_that_goes_and_closed_streams(line, status):
    found, _, said = shell(f"{COMMAND} {line}")
    assert found in {status, 0 if status == 141 else status}, said  # a pipe may take all before its reader goes
    assert said == ""


def test_a_narrow_encoding():
    status, out, said = shell(f"{COMMAND} list", PYTHONIOENCODING="ascii")
    assert (status, said) == (0, "")
    assert "restoreformer" in out.decode("ascii")


class Terminal(io.TextIOWrapper):
    """A terminal of some encoding."""

    def __init__(self, encoding):
        super().__init__(io.BytesIO(), encoding=encoding)

    def isatty(self):
        return True

    @property
    def text(self):
        self.flush()
        return self.buffer.getvalue().decode(self.encoding)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_everything_that_is_told(encoding, monkeypatch, capfd):
    out, err = Terminal(encoding), Terminal(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)

    def command():
        table = Table("μ ± σ", title="→ leaderboard")
        table.add_row("0.5 ± 0.1 ↑")
        show(table, 80)
        with Reporter() as reporter:
            reporter("embed → faces", 0, 2)
            reporter("embed → faces", 2, 2)
            reporter.say("faces: 2 µ – done")
        with download_bar("file ↓") as progress:
            progress(1, 2)
        return 0

    assert guarded(command) == 0
    assert "leaderboard" in out.text
    assert "faces: 2" in err.text
    assert "2/2" in err.text, "the bar is on standard error"
    assert "2/2" not in out.text
    assert capfd.readouterr() == ("", "")


def test_a_reader_that_goes_while_a_table_is_printed_is_no_failure_of_rows(monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        table = Table("name")
        for number in range(1500):
            table.add_row(f"row {number}")
        assert guarded(lambda: show(table, 80) or 0) == 141
