"""Weight files: the registry, where files are looked for, trust, resumable fetching, refusal of hostile files."""

import os
import pickle
import re
from pathlib import Path

import pytest
import torch

from ffhqref.core.errors import WeightsError
from ffhqref.core.hashing import sha256_bytes
from ffhqref.weights import files as weights
from ffhqref.weights import recorded
from ffhqref.weights.tensors import load_into, load_tensors

NOTES = Path(__file__).parents[3] / "shared" / "notes" / "restorers.md"


def put(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# registry


def test_every_entry_is_complete_and_its_file_name_unique():
    entries = weights.registry()
    names = [name for item in entries.values() for name in (item.filename, *item.aliases)]
    assert len(entries) > 40
    assert len(set(names)) == len(names)
    for item in entries.values():
        assert item.sources or item.page, item.name
        assert all(source.startswith("https://") for source in item.sources), item.name
        assert item.sha256 is None or re.fullmatch(r"[0-9a-f]{8}([0-9a-f]{56})?", item.sha256), item.name
        assert not Path(item.filename).is_absolute()
        assert ".." not in Path(item.filename).parts
        assert set(item.folders) <= {"checkpoints", "pyiqa", "insightface", "facexlib"}
        if "non-commercial" in item.licence or "NC" in item.licence:
            assert not item.commercial, item.name


def test_hashes_and_sizes_are_those_of_the_fact_sheet():
    if not NOTES.is_file():
        pytest.skip(f"the fact sheet is not here: {NOTES}")
    rows = re.findall(r"^\| (\S+\.\w+).*?\| ([\d,]{6,}|≈[^|]*) \| ([0-9a-f]{64}) \|", NOTES.read_text(), re.MULTILINE)
    assert len(rows) >= 10
    for filename, size, digest in rows:
        item = weights.by_filename(filename)
        assert item.sha256 == digest, filename
        if not size.startswith("≈"):
            assert item.size == int(size.replace(",", "")), filename


def test_an_unknown_name_is_answered_with_the_nearest_one():
    with pytest.raises(WeightsError, match="Did you mean 'codeformer'"):
        weights.find("codefromer")


# finding


def test_a_named_path_comes_first_then_the_folder_then_the_caches(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("FFHQREF_WEIGHTS", str(tmp_path / "mine"))
    assert weights.find("musiq") is None
    filename = weights.entry("musiq").filename
    in_cache = put(tmp_path / "torch" / "hub" / "pyiqa" / filename, b"c")
    assert weights.find("musiq") == in_cache
    in_folder = put(tmp_path / "mine" / filename, b"f")
    assert weights.find("musiq") == in_folder
    elsewhere = put(tmp_path / "other" / filename, b"o")
    assert weights.find("musiq", folder=tmp_path / "other") == elsewhere
    named = put(tmp_path / "named.pth", b"n")
    assert weights.find("musiq", path=named) == named
    with pytest.raises(WeightsError, match="no such file"):
        weights.find("musiq", path=tmp_path / "missing.pth")


def test_an_insightface_pack_is_found_in_its_own_cache_nested_or_bare(tmp_path, monkeypatch):
    monkeypatch.setenv("INSIGHTFACE_HOME", str(tmp_path))
    bare = put(tmp_path / "models" / "glintr100.onnx", b"x")
    assert weights.find("antelopev2-glintr100") == bare
    nested = put(tmp_path / "models" / "antelopev2" / "glintr100.onnx", b"x")
    assert weights.find("antelopev2-glintr100") == nested


def test_a_missing_file_is_one_line_with_file_origin_and_place(tmp_path, monkeypatch):
    monkeypatch.setenv("FFHQREF_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError) as caught:
        weights.require("vgg16-imagenet")
    line = str(caught.value)
    assert "\n" not in line
    for part in ("vgg16-397923af.pth", "download.pytorch.org", str(tmp_path), "hub/checkpoints", "weights fetch"):
        assert part in line


# trust


def item(filename="thing.bin", **fields):
    return weights.WeightFile("thing", filename, **fields)


def test_a_full_hash_must_match(tmp_path):
    put(tmp_path / "thing.bin", b"real")
    good = weights.require(item(sha256=sha256_bytes(b"real")), folder=tmp_path)
    assert good.published is True
    assert good.signature == f"thing.bin@{sha256_bytes(b'real')[:12]}"
    with pytest.raises(WeightsError, match=r"not whole \(4 of 9 bytes\)"):
        weights.require(item(sha256=sha256_bytes(b"published"), size=9), folder=tmp_path)


def test_a_file_that_differs_from_a_hash_prefix_is_told_apart_in_the_signature(tmp_path):
    put(tmp_path / "thing.bin", b"random weights")
    found = weights.require(item(sha256="00000000"), folder=tmp_path)
    assert found.published is False
    assert "not the published file" in found.signature
    assert weights.require(item(sha256=sha256_bytes(b"random weights")[:8]), folder=tmp_path).published is True


def test_an_unknown_hash_is_recorded_and_a_change_refused(tmp_path):
    file = put(tmp_path / "thing.bin", b"first")
    assert weights.require(item(), folder=tmp_path).published is None
    os.utime(file, ns=(1, 1))  # another time, same bytes: still the same file
    assert weights.require(item(), folder=tmp_path).sha256 == sha256_bytes(b"first")
    file.write_bytes(b"second")
    with pytest.raises(WeightsError, match="changed since first use"):
        weights.require(item(), folder=tmp_path)


def test_a_named_path_is_hashed_and_not_compared(tmp_path):
    own = put(tmp_path / "finetuned.bin", b"mine")
    found = weights.require(item(sha256=sha256_bytes(b"published")), path=own, folder=tmp_path)
    assert found.path == own
    assert found.sha256 == sha256_bytes(b"mine")
    own.write_bytes(b"trained again")
    assert weights.require(item(), path=own, folder=tmp_path).sha256 == sha256_bytes(b"trained again")


def test_verify_reads_the_file_again(tmp_path, monkeypatch):
    monkeypatch.setenv("FFHQREF_WEIGHTS", str(tmp_path))
    # a disk that tells no more than these
    monkeypatch.setattr(recorded, "_stamp", lambda status: [status.st_size, status.st_mtime_ns])
    file = put(tmp_path / weights.entry("vqfr-v2").filename, b"one")
    stamp = file.stat().st_mtime_ns
    assert weights.verify("vqfr-v2").sha256 == sha256_bytes(b"one")
    file.write_bytes(b"two")
    os.utime(file, ns=(stamp, stamp))  # a change that keeps size and time
    assert weights.require("vqfr-v2").sha256 == sha256_bytes(b"one")
    with pytest.raises(WeightsError, match="changed"):
        weights.verify("vqfr-v2")


# finding and loading


def test_the_inventory_says_what_is_here(tmp_path, monkeypatch):
    monkeypatch.setenv("FFHQREF_WEIGHTS", str(tmp_path))
    put(tmp_path / "codeformer.pth", b"x")
    lines = {line["name"]: line for line in weights.inventory()}
    assert set(lines) == set(weights.registry())
    assert lines["codeformer"]["path"] == tmp_path / "codeformer.pth"
    assert not lines["codeformer"]["commercial"]
    assert lines["refldm"]["path"] is None
    assert not lines["dr2"]["fetchable"]


# loading


class Evil:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (os.mkdir, (str(self.marker),))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path):
    path = tmp_path / "evil.pth"
    torch.save({"weight": torch.zeros(2), "bomb": Evil(tmp_path / "ran")}, path)
    with pytest.raises(WeightsError, match="holds more than tensors and was refused") as caught:
        load_tensors(path)
    assert "\n" not in str(caught.value)
    with path.open("wb") as stream:
        pickle.dump(Evil(tmp_path / "ran"), stream)
    with pytest.raises(WeightsError):
        load_tensors(path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.95])
def test_a_truncated_file_is_one_line(tmp_path, suffix, keep):
    from safetensors.torch import save_file

    path = tmp_path / f"file{suffix}"
    (save_file if suffix == ".safetensors" else torch.save)({"weight": torch.randn(64, 64)}, path)
    data = path.read_bytes()
    path.write_bytes(data[: keep if keep >= 1 or keep == 0 else int(len(data) * keep)])
    with pytest.raises(WeightsError, match="refused") as caught:
        load_tensors(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def broken(path, whole, keep):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(whole[: int(len(whole) * keep)])
    return path


def zip_archive(folder):
    torch.save({"weight": torch.randn(64, 64)}, folder / "whole.pth")
    return (folder / "whole.pth").read_bytes()


def safetensors(folder):
    from safetensors.torch import save

    return save({"weight": torch.randn(64, 64), "more": torch.zeros(3)})


def onnx(folder):
    import onnx
    from onnx import TensorProto, helper

    value = helper.make_tensor("w", TensorProto.FLOAT, [64], [0.5] * 64)
    node = helper.make_node("Constant", [], ["y"], value=value)
    graph = helper.make_graph([node], "g", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [64])])
    made = helper.make_model(graph)
    onnx.checker.check_model(made)
    return made.SerializeToString()


KINDS = {"vqfr-v2": zip_archive, "arc2face-unet": safetensors, "arc2face-arcface": onnx}
"""Files of which no hash is published, by container."""


@pytest.mark.parametrize("keep", [0, 0.01, 0.5, 0.99])
@pytest.mark.parametrize("name", KINDS)
def test_half_a_file_is_told_at_once_and_leaves_no_trace(tmp_path, name, keep):
    whole = KINDS[name](tmp_path)
    file = broken(tmp_path / "home" / weights.entry(name).filename, whole, keep)
    with pytest.raises(WeightsError, match=rf"is not whole \(.*\): run: ffhqref weights fetch {name}$"):
        weights.require(name, folder=tmp_path / "home")
    file.write_bytes(whole)  # by hand
    assert weights.require(name, folder=tmp_path / "home").sha256 == sha256_bytes(whole)
    own = broken(tmp_path / f"mine{file.suffix}", whole, keep)
    with pytest.raises(WeightsError, match="is not whole"):
        weights.require(name, path=own, folder=tmp_path / "home")


def test_half_a_file_that_nothing_tells_is_forgotten_when_it_does_not_load(tmp_path, monkeypatch):
    """A file of torch's old format has no end that could be missed."""
    monkeypatch.setenv("FFHQREF_WEIGHTS", str(tmp_path))
    torch.save({"weight": torch.randn(64, 64)}, tmp_path / "whole.pkl", _use_new_zipfile_serialization=False)
    whole = (tmp_path / "whole.pkl").read_bytes()
    file = broken(tmp_path / weights.entry("dr2").filename, whole, 0.5)
    found = weights.require("dr2")
    with pytest.raises(WeightsError, match="was refused"):
        load_tensors(found.path)
    file.write_bytes(whole)
    assert load_tensors(weights.require("dr2").path)["weight"].shape == (64, 64)


@pytest.mark.parametrize("page", [b"<!DOCTYPE html><p>Sign in", b"version https://git-lfs.github.com/spec/v1\noid"])
def test_a_page_in_place_of_the_file_is_told(tmp_path, page):
    put(tmp_path / weights.entry("vqfr-v2").filename, page)
    with pytest.raises(WeightsError, match=r"a web page, not|a Git LFS pointer, not"):
        weights.require("vqfr-v2", folder=tmp_path)


def test_a_changed_file_is_accepted_when_told(tmp_path, monkeypatch):
    monkeypatch.setenv("FFHQREF_WEIGHTS", str(tmp_path))
    file = put(tmp_path / weights.entry("vqfr-v2").filename, b"one")
    weights.require("vqfr-v2")
    file.write_bytes(b"another")
    with pytest.raises(WeightsError, match="verify --accept vqfr-v2"):
        weights.require("vqfr-v2")
    assert weights.verify("vqfr-v2", accept=True).sha256 == sha256_bytes(b"another")
    assert weights.require("vqfr-v2").sha256 == sha256_bytes(b"another")


def test_one_file_under_two_names_has_one_signature(tmp_path):
    first = weights.require(item(), path=put(tmp_path / "a" / "net.bin", b"same"), folder=tmp_path)
    second = weights.require(item(), path=put(tmp_path / "b" / "renamed.bin", b"same"), folder=tmp_path)
    assert first.signature == second.signature


def test_wrappers_and_prefixes_are_taken_off(tmp_path):
    path = tmp_path / "file.pth"
    torch.save({"params": {"module.a": torch.ones(1)}, "params_ema": {"module.a": torch.full((1,), 2.0)}, "n": 3}, path)
    found = load_tensors(path, wrappers=("params_ema", "params"), prefix="module.")
    assert {name: value.item() for name, value in found.items()} == {"a": 2.0}
    with pytest.raises(WeightsError, match="no tensors"):
        load_tensors(path)


def test_tensors_that_do_not_fit_are_named(tmp_path):
    layer = torch.nn.Linear(2, 3)
    load_into(layer, {"weight": torch.ones(3, 2), "bias": torch.zeros(3)}, "f.pth")
    assert layer.weight.sum() == 6
    with pytest.raises(WeightsError, match=r"1 missing \(first: bias\), 1 unknown \(first: bais\), 1 of another shape"):
        load_into(layer, {"weight": torch.ones(2, 2), "bais": torch.zeros(3)}, "f.pth")


def test_an_entry_without_an_address_says_where_its_file_comes_from():
    silent = [item.name for item in weights.registry().values() if not item.sources and not (item.page and item.note)]
    assert silent == []
