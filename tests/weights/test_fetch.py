"""Downloads: whatever a server, a crash or a second process does, the file is right or absent, never wrong."""

import http.server
import json
import multiprocessing
import os
import signal
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import partial

import pytest
import torch

from ffhqref.core.errors import FfhqrefError, WeightsError
from ffhqref.core.hashing import sha256_bytes
from ffhqref.weights import download, fetch, files
from ffhqref.weights.fetch import obtain
from ffhqref.weights.files import WeightFile, require
from ffhqref.weights.tensors import load_tensors

BODY = bytes(range(256)) * 2000


@dataclass
class Site:
    """What a server on this machine has, how it behaves, and what it was asked."""

    url: str
    body: bytes
    manner: str = "honest"
    etag: str | None = '"one"'
    asked: list[str | None] = None  # type: ignore[assignment]


def _handler(site):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self):
            self.send_response(200)
            self.end_headers()
            self.close_connection = True

        def do_GET(self):
            wanted = self.headers.get("Range")
            site.asked.append(wanted)
            self.close_connection = True
            body, manner = site.body, site.manner
            if manner == "redirect" and self.path != "/elsewhere":
                self.send_response(302)
                self.send_header("Location", f"{site.url}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if manner in ("ftp", "file"):
                self.send_response(302)
                self.send_header("Location", f"{manner}:///etc/passwd")
                self.end_headers()
                return
            if manner == "missing":
                self.send_error(404)
                return
            matches = self.headers.get("If-Range") in (None, site.etag)
            start = int(wanted[6:-1]) if wanted and matches and manner != "whole" else 0
            if wanted and start >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            said = start
            if manner == "wrong offset" and start:
                start = start // 2
                said = start
            if manner == "lying offset" and start:
                start = start // 2
            self.send_response(206 if wanted and matches and manner != "whole" else 200)
            if wanted and matches and manner not in ("whole", "no range said"):
                self.send_header("Content-Range", f"bytes {said}-{len(body) - 1}/{len(body)}")
            if site.etag:
                self.send_header("ETag", site.etag)
            self.send_header("Content-Type", "text/html" if manner == "page" else "application/octet-stream")
            sent = body[start:]
            if manner == "short":  # says and sends less than the file has
                sent = sent[: len(sent) // 3]
                self.send_header("Content-Length", str(len(sent)))
            elif manner == "long":  # says more than it sends
                self.send_header("Content-Length", str(len(sent) * 2))
            elif manner != "silent":
                self.send_header("Content-Length", str(len(sent)))
            self.end_headers()
            if manner == "breaks":
                sent = sent[: len(sent) // 2]
            if manner == "slow":
                for at in range(0, len(sent), 20_000):
                    self.wfile.write(sent[at : at + 20_000])
                    self.wfile.flush()
                    time.sleep(0.02)
                return
            self.wfile.write(sent)

        def log_message(self, *_):
            pass

    return Handler


@pytest.fixture
def serve():
    """Start servers; return their `Site`."""
    running = []

    def start(body=BODY, manner="honest", **fields):
        site = Site("", body, manner, asked=[], **fields)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(site))
        server.handle_error = lambda *_: None  # who kills a client need not read about it
        site.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        running.append(server)
        return site

    yield start
    for server in running:
        server.shutdown()
        server.server_close()


def item(*sites, filename="thing.dat", path="/file", **fields):
    return WeightFile("thing", filename, sources=tuple(site.url + path for site in sites), **fields)


def checkpoint(folder, *, old=False, size=64):
    file = folder / "made.pth"
    torch.manual_seed(size)
    torch.save({"weight": torch.randn(size, size)}, file, _use_new_zipfile_serialization=not old)
    data = file.read_bytes()
    file.unlink()
    return data


def left(folder):
    return sorted(file.name for file in folder.rglob("*") if file.is_file() and "recorded_sha256" not in file.name)


def test_fetch_tells_its_progress_and_leaves_one_whole_file(serve, tmp_path):
    told = []
    wanted = item(serve(), sha256=sha256_bytes(BODY), size=len(BODY))
    path = fetch.fetch(wanted, folder=tmp_path, progress=lambda there, total: told.append((there, total)))
    assert path.read_bytes() == BODY
    assert told[-1] == (len(BODY), len(BODY))
    assert left(tmp_path) == ["thing.dat"]
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_broken_download_is_resumed_where_its_etag_is_the_same(serve, tmp_path):
    site = serve(manner="breaks")
    with pytest.raises(WeightsError, match=r"broke off|IncompleteRead"):
        fetch.fetch(item(site), folder=tmp_path)
    assert not (tmp_path / "thing.dat").exists()
    half = max(file.stat().st_size for file in tmp_path.glob(".*.part"))
    assert 0 < half < len(BODY)
    site.manner = "honest"
    assert fetch.fetch(item(site), folder=tmp_path).read_bytes() == BODY
    assert site.asked[-1] == f"bytes={half}-"
    assert left(tmp_path) == ["thing.dat"]


@pytest.mark.parametrize("change", ["another etag", "no etag", "whole", "wrong offset", "no range said", "shorter"])
def test_what_is_no_continuation_begins_anew(serve, tmp_path, change):
    site = serve(manner="breaks")
    with pytest.raises(WeightsError):
        fetch.fetch(item(site), folder=tmp_path)
    site.manner = change if change in ("whole", "wrong offset", "no range said") else "honest"
    if change == "another etag":
        site.etag, site.body = '"two"', BODY[::-1]
    elif change == "no etag":
        site.etag, site.body = None, BODY[::-1]
    elif change == "shorter":
        site.body = BODY[: len(BODY) // 4]
    # without an ETag it answers 206 to a validator that it cannot know: told by nothing but the hash
    wanted = item(site, sha256=sha256_bytes(site.body) if change == "no etag" else None)
    assert fetch.fetch(wanted, folder=tmp_path).read_bytes() == site.body


def test_a_lying_offset_is_told_by_the_hash_and_fetched_once_more(serve, tmp_path):
    site = serve(manner="breaks")
    wanted = item(site, sha256=sha256_bytes(BODY)[:8])
    with pytest.raises(WeightsError):
        fetch.fetch(wanted, folder=tmp_path)
    site.manner = "lying offset"
    assert fetch.fetch(wanted, folder=tmp_path).read_bytes() == BODY
    assert site.asked[-1] is None


def test_a_second_source_never_continues_the_first(serve, tmp_path):
    first, second = serve(manner="breaks"), serve(BODY[::-1])
    assert fetch.fetch(item(first, second), folder=tmp_path).read_bytes() == BODY[::-1]
    assert second.asked == [None]
    assert left(tmp_path) == ["thing.dat"]


def test_a_part_of_an_earlier_release_is_left_alone(serve, tmp_path):
    (tmp_path / "thing.dat.part").write_bytes(b"of another file")
    assert fetch.fetch(item(serve()), folder=tmp_path).read_bytes() == BODY


LIARS = {
    "short": "not whole|other bytes|damaged|bytes, expected|cut off",
    "long": "broke off|IncompleteRead|bytes, expected",
    "page": "a web page",
    "silent": "does not say how many bytes",
    "missing": "Not Found",
    "breaks": "broke off|IncompleteRead",
    "ftp": "refused to be redirected",
    "file": "Redirection to url .* is not allowed",
}


@pytest.mark.parametrize("manner", LIARS)
@pytest.mark.parametrize("known", ["nothing", "size", "hash"])
def test_nothing_comes_from_a_server_that_lies_or_breaks_off(serve, tmp_path, manner, known):
    whole = checkpoint(tmp_path)
    facts = {"nothing": {}, "size": {"size": len(whole)}, "hash": {"sha256": sha256_bytes(whole)}}[known]
    folder = tmp_path / "w"
    if manner == "silent" and known == "size":  # long enough, and of the right kind
        assert fetch.fetch(item(serve(whole, manner), filename="a.pth", **facts), folder=folder).read_bytes() == whole
        return
    with pytest.raises(WeightsError, match=LIARS[manner]) as caught:
        fetch.fetch(item(serve(whole, manner), filename="a.pth", **facts), folder=folder)
    assert "\n" not in str(caught.value)
    assert not (folder / "a.pth").exists()


@pytest.mark.parametrize("manner", ["redirect", "slow", "whole"])
def test_a_slow_or_redirecting_server_is_waited_for_and_followed(serve, tmp_path, manner):
    assert fetch.fetch(item(serve(manner=manner)), folder=tmp_path).read_bytes() == BODY


def flipped(data, at):
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


FOREIGN = {
    "a page": lambda whole: b"\n <!DOCTYPE html><p>Sign in" + b" " * 4000,
    "an answer in JSON": lambda whole: b'{"error": "rate limit"}',
    "half": lambda whole: whole[: len(whole) // 2],
    "doubled": lambda whole: whole + whole,
    "half and another": lambda whole: whole[: len(whole) // 2] + whole,
    "a flipped bit": lambda whole: flipped(whole, len(whole) // 2),
    "a tail": lambda whole: whole + b"\0" * 10,
    "noise": lambda whole: bytes(range(1, 200)) * 30,
    "nothing": lambda whole: b"",
}  # fmt: skip


@pytest.mark.parametrize("kind", ["zip", "old", "safetensors", "npz", "mat", "onnx"])
@pytest.mark.parametrize("what", FOREIGN)
def test_what_no_hash_guards_must_be_of_its_kind(serve, tmp_path, kind, what):
    if kind == "zip":
        whole, name = checkpoint(tmp_path), "a.pth"
    elif kind == "old":
        whole, name = checkpoint(tmp_path, old=True), "a.ckpt"
    elif kind == "safetensors":
        from safetensors.torch import save

        whole, name = save({"weight": torch.randn(64, 64)}), "a.safetensors"
    elif kind == "npz":
        import numpy as np

        np.savez(tmp_path / "a.npz", a=np.arange(4000))
        whole, name = (tmp_path / "a.npz").read_bytes(), "a.npz"
    elif kind == "mat":
        whole, name = b"MATLAB 5.0 MAT-file" + b"\0" * 3000, "a.mat"
    else:
        from .test_weights import onnx

        whole, name = onnx(tmp_path), "a.onnx"
    site = serve(FOREIGN[what](whole))
    # without checksums nothing can tell these; two ONNX models one after the other are one
    untold = {
        "safetensors": {"a flipped bit"},
        "onnx": {"a flipped bit", "doubled"},
        "old": {"a flipped bit"},
        "mat": {"half", "doubled", "half and another", "a flipped bit", "a tail"},
    }
    if what in untold.get(kind, ()):
        return
    with pytest.raises(WeightsError, match="could not be fetched"):
        fetch.fetch(item(site, filename=name), folder=tmp_path / "w")
    assert left(tmp_path / "w") == []
    site.body = whole
    assert fetch.fetch(item(site, filename=name), folder=tmp_path / "w").read_bytes() == whole


def test_no_more_than_the_limit_is_fetched(serve, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "LIMIT", 1000)
    with pytest.raises(WeightsError, match="more than the 1000 that are fetched"):
        fetch.fetch(item(serve()), folder=tmp_path)
    with pytest.raises(WeightsError, match=r"512000 bytes, expected 999"):
        fetch.fetch(item(serve(), size=999), folder=tmp_path)
    with pytest.raises(WeightsError, match="sent more than 999 bytes"):
        fetch.fetch(item(serve(manner="silent"), size=999), folder=tmp_path)
    assert not (tmp_path / "thing.dat").exists()


def test_another_file_is_refused_and_the_next_source_tried(serve, tmp_path):
    wrong = item(serve(manner="missing"), serve(), sha256="0" * 64)
    with pytest.raises(WeightsError) as caught:
        fetch.fetch(wrong, folder=tmp_path)
    assert "Not Found" in str(caught.value)
    assert "expected 000000000000" in str(caught.value)
    assert left(tmp_path) == []


def test_nothing_is_written_through_a_link(serve, tmp_path):
    site, precious = serve(), tmp_path / "precious"
    precious.write_bytes(b"mine")
    folder = tmp_path / "w"
    folder.mkdir()
    part = f".thing.dat.{sha256_bytes((site.url + '/file').encode())[:8]}.part"
    for name in (part, ".thing.dat.lock"):
        (folder / name).symlink_to(precious)
        with pytest.raises(FfhqrefError, match="writes through no link"):
            fetch.fetch(item(site), folder=folder)
        (folder / name).unlink()
    (folder / f"{part}.json").symlink_to(precious)  # replaced
    assert fetch.fetch(item(site), folder=folder).read_bytes() == BODY
    assert precious.read_bytes() == b"mine"


@pytest.mark.parametrize("variable", ["FFHQREF_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline_never_asks(serve, tmp_path, monkeypatch, variable):
    monkeypatch.setenv(variable, "1")
    site = serve()
    with pytest.raises(WeightsError, match="offline is set"):
        fetch.fetch(item(site), folder=tmp_path)
    with pytest.raises(WeightsError, match="not on this machine"):
        obtain(item(site), folder=tmp_path, download=True)
    assert site.asked == []


def test_obtain_downloads_only_when_asked(serve, tmp_path):
    site = serve()
    with pytest.raises(WeightsError, match="not on this machine"):
        obtain(item(site), folder=tmp_path)
    assert site.asked == []
    assert obtain(item(site), folder=tmp_path, download=True).sha256 == sha256_bytes(BODY)


def test_what_has_no_source_is_fetched_by_hand(tmp_path):
    with pytest.raises(WeightsError, match=r"get thing.dat from https://example.org/page"):
        fetch.fetch(item(page="https://example.org/page"), folder=tmp_path)


def test_a_silent_host_is_asked_once(tmp_path, monkeypatch):
    asked = []

    def silent(request, timeout):
        asked.append((request.full_url, timeout))
        raise urllib.error.URLError("timed out")

    monkeypatch.setattr(urllib.request, "urlopen", silent)
    sources = ("https://silent.invalid/a", "https://silent.invalid/b")
    for name in ("one", "two"):
        with pytest.raises(WeightsError, match="no answer"):
            fetch.fetch(WeightFile(name, name, sources=sources), folder=tmp_path)
    assert asked == [("https://silent.invalid", 10.0)]


def test_only_http_is_followed(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"s")
    with pytest.raises(WeightsError, match="only http"):
        fetch.fetch(WeightFile("a", "a", sources=(secret.as_uri(),)), folder=tmp_path / "w")


# records


@pytest.fixture
def known(serve, tmp_path, monkeypatch):
    """A registered file of unknown hash, of which a server has the whole."""
    site = serve(checkpoint(tmp_path))
    wanted = item(site, filename="thing.pth")
    monkeypatch.setattr(files, "registry", lambda: {"thing": wanted})
    return site


def verified(folder):
    return files.inventory(folder)[0]["verified"]


def test_fetching_replaces_half_of_a_file_and_one_that_was_changed(known, tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "thing.pth").write_bytes(known.body[: len(known.body) // 2])
    for _ in range(2):
        assert fetch.fetched("thing", folder=folder).sha256 == sha256_bytes(known.body)
    assert len(known.asked) == 1
    (folder / "thing.pth").write_bytes(known.body[:-1] + b"x")
    with pytest.raises(WeightsError, match="verify --accept thing"):
        require("thing", folder=folder)
    assert fetch.fetched("thing", folder=folder).sha256 == sha256_bytes(known.body)
    known.body = checkpoint(tmp_path, size=32)
    assert fetch.fetched("thing", folder=folder, again=True).sha256 == sha256_bytes(known.body)


def test_a_file_that_does_not_load_is_recorded_as_such_and_replaced(known, tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "thing.pth").write_bytes(b"\x80\x02 half a pickle of torch's old format")
    assert verified(folder) == "never"
    found = require("thing", folder=folder)
    assert verified(folder) == "first use"
    with pytest.raises(WeightsError, match="ffhqref weights fetch thing"):
        load_tensors(found)
    with pytest.raises(WeightsError, match=r"did not load \(it .*\): run: ffhqref weights fetch thing"):
        require("thing", folder=folder)
    assert verified(folder) == "never"
    assert load_tensors(fetch.fetched("thing", folder=folder))["weight"].shape == (64, 64)
    assert verified(folder) == "first use"


@pytest.mark.parametrize(("digits", "word"), [(64, "full hash"), (8, "short hash"), (0, "first use")])
def test_the_list_says_how_far_a_file_is_verified(known, tmp_path, monkeypatch, digits, word):
    wanted = item(known, filename="thing.pth", sha256=sha256_bytes(known.body)[:digits] or None)
    monkeypatch.setattr(files, "registry", lambda: {"thing": wanted})
    assert verified(tmp_path / "w") is None
    assert files.inventory(tmp_path / "w")[0]["known"] == (word if digits else "no hash")
    fetch.fetched("thing", folder=tmp_path / "w")
    assert verified(tmp_path / "w") == word
    (tmp_path / "w" / "thing.pth").write_bytes(known.body)  # touched since
    assert verified(tmp_path / "w") == "never"


def test_what_stands_in_for_a_published_file_is_told_and_fetching_replaces_it(known, tmp_path, monkeypatch):
    wanted = item(known, filename="thing.pth", sha256=sha256_bytes(known.body), size=len(known.body), substitutes=True)
    monkeypatch.setattr(files, "registry", lambda: {"thing": wanted})
    folder = tmp_path / "w"
    folder.mkdir()
    (folder / "thing.pth").write_bytes(checkpoint(tmp_path, size=8))
    assert "not the published file" in require("thing", folder=folder).signature
    assert verified(folder) == "NOT the published file"
    assert fetch.fetched("thing", folder=folder).published is True


def test_a_file_is_read_only_while_it_is_the_one_that_was_hashed(known, tmp_path):
    found = fetch.fetched("thing", folder=tmp_path / "w")
    assert load_tensors(found)
    status = found.path.stat()
    found.path.write_bytes(checkpoint(tmp_path, size=63).ljust(status.st_size, b"\0")[: status.st_size])
    os.utime(found.path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(WeightsError, match="changed since it was checked"):
        load_tensors(found)


# several processes


def _fetch_in_child(wanted, folder):
    fetch.fetch(wanted, folder=folder)


def _started(wanted, folder):
    process = multiprocessing.get_context("fork").Process(target=_fetch_in_child, args=(wanted, folder))
    process.start()
    return process


@pytest.mark.parametrize("manner", ["slow", "honest"])
def test_two_at_once_ask_once_and_have_one_file(serve, tmp_path, manner):
    site = serve(manner=manner)
    children = [_started(item(site, sha256=sha256_bytes(BODY)), tmp_path) for _ in range(2)]
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert (tmp_path / "thing.dat").read_bytes() == BODY
    assert left(tmp_path) == ["thing.dat"]
    if manner == "slow":
        assert len(site.asked) == 1


@pytest.mark.slow
def test_killed_twenty_times_the_file_is_right_at_last(serve, tmp_path):
    site = serve(BODY * 4, manner="slow")
    for number in range(20):
        child = _started(item(site), tmp_path)
        time.sleep(0.02 + 0.01 * number)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        file = tmp_path / "thing.dat"
        assert not file.exists() or file.read_bytes() == site.body
        for note in tmp_path.glob(".*.json"):
            assert json.loads(note.read_bytes())["length"] == len(site.body)
    site.manner = "honest"
    assert fetch.fetch(item(site), folder=tmp_path).read_bytes() == site.body
    assert left(tmp_path) == ["thing.dat"]
    assert sum(asked is not None for asked in site.asked) > 2, "resumed, not begun anew"


def test_files_of_one_folder_come_together(serve, tmp_path, monkeypatch):
    """The tree of a hub's folder, beside each other where the network's loader looks."""
    tree = tmp_path / "hub"
    for path, body in {"unet/big.dat": b"weights" * 99, "unet/config.json": b"{}", "vae/config.json": b"{ }"}.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(body)
    quiet = type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(quiet, directory=str(tree))) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        base = WeightFile(
            "base", "base-1/unet/big.dat", sources=(f"{url}/unet/big.dat",),
            companions=("unet/config.json", "vae/config.json"),
        )  # fmt: skip
        monkeypatch.setattr(files, "registry", lambda: {"base": base})
        found = fetch.fetched("base", folder=tmp_path / "home")
        server.shutdown()
    assert found.path == tmp_path / "home" / "base-1" / "unet" / "big.dat"
    for path in ("unet/big.dat", "unet/config.json", "vae/config.json"):
        assert (tmp_path / "home" / "base-1" / path).read_bytes() == (tree / path).read_bytes()
    (tmp_path / "home" / "base-1" / "vae" / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"base/vae/config\.json"):  # absent again, and nobody serves it any more
        fetch.fetched("base", folder=tmp_path / "home")


def test_companions_stand_beside_the_first_source():
    for entry in files.registry().values():
        inside = entry.filename.partition("/")[2]
        assert not entry.companions or all(source.endswith(f"/{inside}") for source in entry.sources), entry.name
        assert all(len(part.sources) == len(entry.sources) for part in entry.parts)
