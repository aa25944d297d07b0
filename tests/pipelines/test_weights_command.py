"""``ffhqref weights``: quick, one line for what is wrong, and a fetched file is the published one."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading

import pytest

import ffhqref.weights.files
from ffhqref.cli.main import main
from ffhqref.core.hashing import sha256_bytes
from ffhqref.weights.files import WeightFile

from ..command import REPOSITORY
from .test_cli import one_line

DATA = bytes(range(256)) * 9000


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A registry of three files, of which one can be fetched from a server on this machine."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "net.pth").write_bytes(DATA)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments, **named):
            super().__init__(*arguments, directory=str(site), **named)

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    source = f"http://127.0.0.1:{server.server_address[1]}/net.pth"
    items = [
        WeightFile("net", "net.pth", sources=(source,), sha256=sha256_bytes(DATA), size=len(DATA), licence="[bold]MIT"),
        WeightFile("refldm", "refldm.ckpt", page="https://example.org"),
        WeightFile("refldm-vqgan", "vqgan.ckpt", page="https://example.org"),
    ]
    known = {item.name: item for item in items}
    monkeypatch.setattr(ffhqref.weights.files, "registry", lambda: known)
    monkeypatch.setenv("FFHQREF_WEIGHTS", str(tmp_path / "mine"))
    for name in ("FFHQREF_OFFLINE", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    yield tmp_path / "mine"
    server.shutdown()


def test_fetch_path_verify_list(served, capsys):
    assert main(["weights", "path", "net"]) == 2
    assert "ffhqref weights fetch net" in capsys.readouterr().err  # the message tells the command that helps
    assert main(["weights", "fetch", "net"]) == 0
    told = capsys.readouterr()
    assert told.out.strip() == str(served / "net.pth")
    assert "net: 2.3 of 2.3 MB" in told.err
    assert (served / "net.pth").read_bytes() == DATA
    assert main(["weights", "path", "net"]) == 0
    assert capsys.readouterr().out.strip() == str(served / "net.pth")
    assert main(["weights", "verify"]) == 0
    assert capsys.readouterr().out.startswith(f"net: the published file, sha256 {sha256_bytes(DATA)}")
    assert main(["weights", "list"]) == 0
    shown = capsys.readouterr().out
    assert str(served / "net.pth") in shown.replace("\n", "")
    assert "no: by hand" in shown
    assert "[bold]MIT" in shown


def test_verify_finds_a_changed_file(served, capsys):
    assert main(["weights", "fetch", "net"]) == 0
    (served / "net.pth").write_bytes(DATA[:-1] + b"x")
    (served / "refldm.ckpt").write_bytes(b"whatever")
    assert main(["weights", "verify"]) == 1
    told = capsys.readouterr()
    assert "not the published file" in told.err or "changed since first use" in told.err
    assert "refldm: no published hash is known" in told.out  # and goes on to the others
    assert main(["weights", "verify", "net"]) == 2


def test_offline_fetches_nothing(served, capsys, monkeypatch):
    monkeypatch.setenv("FFHQREF_OFFLINE", "1")
    assert main(["weights", "fetch", "net"]) == 2
    assert "offline is set" in capsys.readouterr().err
    assert not served.exists() or not list(served.iterdir())


def test_a_wrong_name_is_found_before_the_first_download(served, capsys):
    assert main(["weights", "fetch", "net", "nut"]) == 2
    assert "Did you mean 'net'" in capsys.readouterr().err
    assert not (served / "net.pth").exists()


def test_a_folder_given_by_hand(served, tmp_path, capsys):
    assert main(["weights", "--folder", str(tmp_path / "other"), "fetch", "net"]) == 0
    assert (tmp_path / "other" / "net.pth").read_bytes() == DATA


def test_convert_reads_the_published_pair_and_refuses_what_is_none(served, capsys):
    assert main(["weights", "convert", "net"]) == 2
    assert "Convertible: refldm" in capsys.readouterr().err
    served.mkdir()
    (served / "refldm.ckpt").write_bytes(b"no checkpoint")
    (served / "vqgan.ckpt").write_bytes(b"no checkpoint")
    assert main(["weights", "convert", "refldm"]) == 2
    line = capsys.readouterr().err.strip()
    assert "refldm.ckpt" in line
    assert "\n" not in line
    assert not (served / "refldm.safetensors").exists()


@pytest.mark.parametrize("arguments", [[], ["fech", "x"], ["fetch"], ["list", "--colour"]])
def test_wrong_arguments_are_one_line(ffhqref, arguments):
    assert "ffhqref weights --help" in one_line(ffhqref("weights", *arguments))


def test_help_loads_nothing_heavy():
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}  # of a new interpreter
    call = [sys.executable, "-m", "ffhqref.cli.main", "weights", "--help"]
    done = subprocess.run(call, env=environment, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    loaded = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines() if "|" in line}
    assert "argparse" in loaded
    assert not loaded & {"torch", "numpy", "pandas", "pyarrow", "rich", "hydra", "cv2"}
