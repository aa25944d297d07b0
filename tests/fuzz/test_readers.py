"""Seeded fuzzing of every reader of foreign bytes: an answer or one line of ours; no traceback, no hang, no stray file.

A good input of each kind is mutated: bits, bytes and blocks are changed, cut, doubled, and words that parsers trip over
are put in. What was once found is in `FOUND`, and in the tests of the readers.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import signal
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ffhqref.cases.packed import Layout, PackedCase, Picture, read_cases, write_cases
from ffhqref.core.csv_file import parse_csv, read_csv
from ffhqref.core.errors import ConfigError, FfhqrefError
from ffhqref.core.images import read_rgb
from ffhqref.core.parsing import read_json, read_yaml
from ffhqref.datasets.ages import read_ages
from ffhqref.datasets.attributes import read_attributes
from ffhqref.datasets.ffhq_json import read_ffhq_json
from ffhqref.engine import Journal
from ffhqref.reference_sets.contamination import read_test_list
from ffhqref.reference_sets.formats import read_image_list, read_mapping
from ffhqref.reference_sets.review import read_exclusions
from ffhqref.restorers.command.recipe import Recipe
from ffhqref.store import tables
from ffhqref.synthesis.vectors import read_vectors
from ffhqref.training.faceme.features import read_feature
from ffhqref.training.faceme.lists import read_samples
from ffhqref.training.finished import finished
from ffhqref.weights.recorded import known_sha256
from ffhqref.zoo.dmdnet.config import DMDNetConfig
from ffhqref.zoo.shared.architecture import read_architecture

SECONDS = 10
"""After which a reader hangs."""

WORDS = (
    b"\0", b'"', b"'", b",", b"\n", b"\r", b"[" * 3000, b"{" * 3000, b"../../", b"/etc/passwd", b"\xff\xfe",
    b"\xef\xbb\xbf", b"9" * 400, b"-1", b"nan", b"null", b"{}", b"[]", b" " * 5000, b"\xed\xa0\x80", b"&a [*a,*a]",
    b"!!python/object:os.system",
    "²²²".encode(), b"\x7f" * 9, struct.pack("<I", 0xFFFFFFFF), struct.pack("<Q", 1 << 62),
)  # fmt: skip


def mutated(data: bytes, draws: random.Random) -> bytes:
    found = bytearray(data)
    for _ in range(draws.randint(1, 4)):
        place = draws.randrange(len(found) + 1)
        width = draws.choice((1, 1, 4, 64))
        match draws.randrange(6):
            case 0 if found:
                found[min(place, len(found) - 1)] ^= 1 << draws.randrange(8)
            case 1:
                found[place : place + width] = draws.randbytes(width)
            case 2:
                del found[place:]
            case 3:
                del found[place : place + width]
            case 4:
                found[place:place] = found[place : place + 4 * width]
            case _:
                found[place : place + draws.choice((0, width))] = draws.choice(WORDS)
    return bytes(found)


@dataclass(frozen=True)
class Reader:
    """A reader, good inputs for it, and the name of the file."""

    read: Callable[[Path], Any]
    seeds: tuple[bytes, ...]
    name: str


def image_seeds() -> tuple[bytes, ...]:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8))
    found = []
    for kind in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "JPEG2000", "PPM", "TGA"):
        stream = io.BytesIO()
        picture.save(stream, kind)
        found.append(stream.getvalue())
    stream = io.BytesIO()
    picture.convert("L").save(stream, "TIFF", compression="tiff_lzw")
    return (*found, stream.getvalue(), b"DDS " + bytes(124), b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")


def table_seed(folder: Path) -> bytes:
    row = {"method": "lq", "benchmark": "b", "metric": "psnr", "value": 1.5, "status": "ok"}
    frame = pd.DataFrame([{**row, "case_id": f"{i}"} for i in range(5)])
    return tables.write_table(folder, "scores", frame).read_bytes()


def read_scores(path: Path) -> None:
    (path.parent / "tables").mkdir(exist_ok=True)
    path.replace(path.parent / "tables" / "scores.parquet")
    tables.read_table(path.parent, "scores")


def read_journal(path: Path) -> None:
    with Journal(path, dict) as journal:
        for key in list(journal._rows):
            journal.get(key)
        journal.add({"new": {"y": 1}})
    with Journal(path, dict) as journal:
        assert journal.get("new") == {"y": 1}


def journal_seed(folder: Path) -> bytes:
    with Journal(folder / "seed.jsonl", dict) as journal:
        journal.add({"a": {"x": 1.5, "v": np.ones(3, np.float32)}, "b": {"x": None}})
    return (folder / "seed.jsonl").read_bytes()


def statistics_of(path: Path) -> None:
    from ffhqref.metrics.dataset_metrics import stored_statistics

    stored_statistics(str(path))


def onnx_of(path: Path) -> None:
    from ffhqref.faces.onnx_input import input_rule

    input_rule(path)


def tensors_of(path: Path) -> None:
    from ffhqref.weights.tensors import load_tensors

    load_tensors(path)


def saved(write: Callable[[io.BytesIO], Any]) -> bytes:
    stream = io.BytesIO()
    write(stream)
    return stream.getvalue()


def weight_seeds() -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    import torch
    from safetensors.torch import save

    state = {"a.weight": torch.ones(3, 4), "b": torch.zeros(2)}
    pickled = saved(lambda stream: torch.save(state, stream))
    old = saved(lambda stream: torch.save(state, stream, _use_new_zipfile_serialization=False))
    return (pickled, old), (save(state),)


def onnx_seed() -> bytes:
    from onnx import TensorProto, helper

    inputs, outputs = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in "xy")
    nodes = [helper.make_node("Sub", ["x", "m"], ["z"]), helper.make_node("Mul", ["z", "s"], ["y"])]
    constants = [
        helper.make_tensor(name, TensorProto.FLOAT, [1], [value]) for name, value in (("m", 127.5), ("s", 0.1))
    ]
    return bytes(helper.make_model(helper.make_graph(nodes, "g", [inputs], [outputs], constants)).SerializeToString())


def packed(folder: Path, layout: Layout) -> tuple[bytes, str]:
    """Return the file of an export that tells what is in it, and its place below the folder of the benchmark."""
    picture = Picture(".png", b"x" * 40)
    made = PackedCase("c", "t", 1, 3.5, None, '{"sigma": 1}', picture, picture, (picture, picture))
    write_cases(folder / layout, layout, "test", [made, made], 2)
    names = {"parquet": "test-00000.parquet", "webdataset": "test-00000.tar", "imagefolder": "test/metadata.jsonl"}
    return (folder / layout / names[layout]).read_bytes(), names[layout]


def read_packed(path: Path) -> None:
    if path.name == "metadata.jsonl":
        (path.parent / "test").mkdir(exist_ok=True)
        path.replace(path.parent / "test" / path.name)
    list(read_cases(path.parent))


def readers(folder: Path) -> dict[str, Reader]:
    ids = ["00001", "00002", "kim"]
    csv = b'image_id,age,note\n00001,30,"a, ""b"""\n00002,20-29,x\nkim,,y\n'
    recipe = b"commands: [[python, main.py]]\nlq: in/{id}.png\noutput: out/{id}.png\nwatch: ['*.py']\n"
    recipe += b"info: {max_references: 0}\n"
    pairs = b"gt_image,lq_image,ref_image\n1.png,1.png,\"['2.png', '3.png']\"\n"
    verdicts = b"target_id,reference_id,verdict\na,b,reject\nc,,reject\n"
    feature = saved(lambda stream: np.save(stream, np.ones((1, 8), np.float32)))
    listed = {"target": "a.png", "target_emb": ["i/a.npy", "c/a.npy"], "ref_emb": [["i/b.npy"], ["c/b.npy"]]}
    sample = json.dumps(listed).encode()
    credit = {"metadata": {"author": "A", "license": "L", "license_url": "u", "photo_url": "p"}}
    licences = json.dumps({"1": credit, "2": credit}).encode()
    done = {"key": "k", "written": ["a"], "files": {"a": {"sha256": "0", "file_size": 1, "file_mtime_ns": 1}}}
    moments = saved(lambda stream: np.savez(stream, mu=np.zeros(4), sigma=np.eye(4)))
    pickled, safe = weight_seeds()
    text = {"a": [1, {"b": None}]}
    architecture, record = b"channels: 8\nsizes: [1, 2]\n", json.dumps({"/x": {"sha256": "0", "stamp": [1]}}).encode()
    poses = b"image_id,p0,p1,e0\n00001,1,2.5,0\n00002,-1,0,3\n"
    exports = {layout: packed(folder / "exports", layout) for layout in get_args(Layout)}
    return {
        "image": Reader(read_rgb, image_seeds(), "x.png"),
        "table": Reader(read_scores, (table_seed(folder),), "x.parquet"),
        "journal": Reader(read_journal, (journal_seed(folder),), "x.jsonl"),
        "csv": Reader(read_csv, (csv,), "x.csv"),
        "csv.gz": Reader(read_csv, (gzip.compress(csv, mtime=0),), "x.csv.gz"),
        "ages": Reader(lambda path: read_ages(path, ids), (csv,), "x.csv"),
        "attributes": Reader(lambda path: read_attributes(path, ids), (csv,), "x.csv"),
        "mapping": Reader(read_mapping, (pairs,), "x.csv"),
        "list": Reader(read_image_list, (b"1.png\n2.png\n",), "x.txt"),
        "test list": Reader(read_test_list, (b"1.png\n2.png,x\n",), "x.txt"),
        "exclusions": Reader(read_exclusions, (verdicts,), "x.csv"),
        "json": Reader(lambda path: read_json(path, ConfigError), (json.dumps(text).encode(),), "x.json"),
        "yaml": Reader(lambda path: read_yaml(path, ConfigError), (b"a: [1, {b: null}]\nc: &x 2\nd: *x\n",), "x.yaml"),
        "recipe": Reader(Recipe.of, (recipe,), "x.yaml"),
        "ffhq": Reader(lambda path: read_ffhq_json(path, ids[:2]), (licences,), "x.json"),
        "samples": Reader(lambda path: read_samples(path, path.parent), (sample + b"\n",), "train.json"),
        "feature": Reader(read_feature, (feature, saved(lambda stream: _tensor(stream))), "x.npy"),
        "finished": Reader(lambda path: finished(path.parent, "k"), (json.dumps(done).encode(),), "finished.json"),
        "npz": Reader(statistics_of, (moments,), "x.npz"),
        "weights": Reader(tensors_of, pickled, "x.pth"),
        "safetensors": Reader(tensors_of, safe, "x.safetensors"),
        "onnx": Reader(onnx_of, (onnx_seed(),), "x.onnx"),
        "vectors": Reader(lambda path: read_vectors(path, ids, ["p*"], ["e*"]), (poses,), "x.csv"),
        "architecture": Reader(lambda path: read_architecture(DMDNetConfig, path), (architecture,), "x.yaml"),
        "record": Reader(lambda path: known_sha256(path, [path]), (record,), "x.json"),
        **{layout: Reader(read_packed, (seed,), Path(name).name) for layout, (seed, name) in exports.items()},
    }  # fmt: skip


def _tensor(stream: io.BytesIO) -> None:
    import torch

    torch.save(torch.ones(1, 8), stream)


@pytest.fixture(scope="module")
def every(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    return readers(tmp_path_factory.mktemp("seeds"))


NAMES = (
    "image", "table", "journal", "csv", "csv.gz", "ages", "attributes", "mapping", "list", "test list", "exclusions",
    "json", "yaml", "recipe", "ffhq", "samples", "feature", "finished", "npz", "weights", "safetensors", "onnx",
    "vectors", "architecture", "record", "parquet", "webdataset", "imagefolder",
)  # fmt: skip


@pytest.fixture(autouse=True)
def impatient() -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError("a reader hangs")

    before = signal.signal(signal.SIGALRM, late)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def offences(reader: Reader, inputs: Iterator[bytes], folder: Path) -> tuple[int, list[str]]:
    """Feed inputs to a reader; return how many, and what it raised beside errors of ours."""
    count, found = 0, []
    for data in inputs:
        count += 1
        path = folder / reader.name
        path.write_bytes(data)
        signal.alarm(SECONDS)
        try:
            reader.read(path)
        except FfhqrefError as error:
            if not str(error) or len(str(error)) > 2000:
                found.append(f"told badly: {str(error)[:100]!r} on {data[:80]!r}")
        except BaseException as error:
            found.append(f"{type(error).__name__}: {str(error)[:100]} on {data[:80]!r}")
        signal.alarm(0)
    return count, found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("count", [12, pytest.param(400, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_no_input_ends_in_a_traceback_or_leaves_its_folder(every, tmp_path, monkeypatch, record_property, name, count):
    def started(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    assert set(every) == set(NAMES)
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    for variable in ("HOME", "XDG_CACHE_HOME", "FFHQREF_WEIGHTS", "TORCH_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "in"))
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("subprocess.Popen", started)
    monkeypatch.setattr("os.system", started)
    draws, reader = random.Random(f"{name} {count}"), every[name]
    inputs = (mutated(draws.choice(reader.seeds), draws) for _ in range(count))
    done, found = offences(reader, inputs, tmp_path / "in" / "deep")
    record_property("inputs", done)
    assert not found, "\n".join(found[:5])
    assert not list((tmp_path / "here").iterdir())
    assert {entry.name for entry in tmp_path.iterdir()} == {"in", "here"}


FOUND = {
    "image": (b"DDS " + b"|\0\0\0" + b"\xff" * 120, b"%!PS\n", b"II*\0\xff\xff\xff\xff"),
    "csv": (b'image_id,age\na,1\nb,"he said\nc,3\n', b"a,b\n1," + b"x" * 200_000, b"a\0b"),
    "csv.gz": (b"\x1f\x8b\x08\0\0\0\0\0", gzip.compress(b"a,b\n", mtime=0)[:-5]),
    "json": (b"[" * 200_000, b'{"a": "\\ud800"}', b"1e999999"),
    "yaml": (b"[" * 100_000, b"a: !!python/object/apply:os.system [id]", b"\0"),
    "recipe": (b"commands: 5", b"commands: [[a]]\nlq: a\noutput: a\nwatch: ['/etc/*']", b"[]", b"? [a]\n: 1"),
    "samples": (b'{"target": "a\\u0000", "target_emb": ["a", "a"], "ref_emb": [["a"], ["a"]]}', b"[" * 100_000),
    "journal": (b"{}\n", b'{"key":1,"result":{},"crc32":"x"}\n'),
    "npz": (b"PK\x03\x04", b"PK\x05\x06" + bytes(18)),
    "onnx": (b'\x08\x0e:\x27\n\x0e\n\x01x\n\x01m\x12\x01z"\x03Sub\x12\x01g*\x05\x08\x01\x10\x01B\x01m',),
    "finished": (b'{"key": "k", "written": [5], "files": {"a": {"sha256": "0"}}}', b"[[]]"),
    "webdataset": (gzip.compress(bytes(10240)), b"x" * 512),
    "imagefolder": (b"[1]\n", b'{"lq_file_name": 5}\n', b"[" * 100_000),
    "mapping": (b"gt_image,ref_image\n1.png,['1.png'" + b" " * 60_000 + b"\n",),
}
"""Inputs that ended in a traceback or a hang once."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FOUND)
def test_what_was_found_once_stays_mended(every, tmp_path, name):
    _, found = offences(every[name], iter(FOUND[name]), tmp_path)
    assert not found


def test_rows_of_a_mutated_csv_are_all_read_or_refused(tmp_path):
    """No silent loss: what the strict reader takes has as many rows and cells as its text has, quotes or not."""
    draws = random.Random(5)
    plain = b"image_id,age\n" + b"".join(b"%d,%d\n" % (number, number) for number in range(20))
    for _ in range(300):
        data = mutated(plain, draws)
        try:
            table = parse_csv(data, "x.csv")
        except FfhqrefError:
            continue
        if b'"' not in data:
            lines = [line for line in data.removeprefix(b"\xef\xbb\xbf").replace(b"\r", b"\n").split(b"\n") if line]
            assert len(table.rows) == len(lines) - 1
            assert all(len(row.cells) == len(table.columns) for row in table.rows)
    assert os.listdir(tmp_path) == []  # noqa: PTH208
