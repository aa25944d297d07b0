"""Whatever a parser raises is one line of ours, and a refused pickle is never explained with how to let it run."""

from __future__ import annotations

import os
import pickle

import pytest

from ffhqref.core.errors import ConfigError, DatasetError
from ffhqref.core.parsing import load_reason, load_yaml, parsing, read_json, read_yaml


@pytest.mark.parametrize("error", [RecursionError("deep"), MemoryError(), AssertionError(), KeyError("x"), OSError(5)])
def test_anything_that_a_parser_raises_is_an_error_of_ours(error):
    with (
        pytest.raises(DatasetError, match=r"x\.bin cannot be read.*; get it again"),
        parsing("x.bin", DatasetError, "get it again"),
    ):
        raise error


@pytest.mark.parametrize("data", [b"[" * 100_000, b"\xff", b'{"a": ', b"", b"\x00"])
@pytest.mark.parametrize("read", [read_json, read_yaml])
def test_damaged_json_and_yaml_are_one_line(tmp_path, read, data):
    (tmp_path / "x").write_bytes(data)
    if read is read_yaml and not data:
        assert read(tmp_path / "x", ConfigError) is None
        return
    with pytest.raises(ConfigError) as caught:
        read(tmp_path / "x", ConfigError)
    assert str(tmp_path / "x") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_that_look_like_numbers_stay_names_in_yaml():
    """By YAML 1.1 these are 20241128, 8, 7, 750, true, false and a date."""
    words = ["2024_11_28", "010", "007", "12:30", "on", "no", "2024-01-02"]
    assert load_yaml(f"[{', '.join(words)}]") == words
    assert load_yaml("[1, -2, 0.5, .5, 1e-5, 1.10, true, null, ~]") == [1, -2, 0.5, 0.5, 1e-5, 1.1, True, None, None]
    assert load_yaml("[1.10, on, null]", as_written=True) == ["1.10", "on", "null"]
    assert load_yaml("a: &x {b: 1}\nc: {<<: *x, d: 2}") == {"a": {"b": 1}, "c": {"b": 1, "d": 2}}


def test_a_key_twice_in_yaml_is_refused(tmp_path):
    (tmp_path / "x.yaml").write_text("sigma: [1, 2]\nscale: 4\nsigma: [5, 6]\n")
    with pytest.raises(ConfigError, match="line 3: the key 'sigma' occurs twice"):
        read_yaml(tmp_path / "x.yaml", ConfigError)
    with pytest.raises(ValueError, match="line 1: the key 'b' occurs twice"):
        load_yaml("a: {b: 1, b: 2}")


def test_a_refused_pickle_is_not_explained_with_how_to_let_it_run(tmp_path):
    import torch

    class Code:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"a": Code()}, tmp_path / "x.pt")
    (tmp_path / "y.pt").write_bytes(pickle.dumps(Code()))
    for name in ("x.pt", "y.pt"):
        with pytest.raises(pickle.UnpicklingError) as caught:
            torch.load(tmp_path / name, weights_only=True)
        told = load_reason(caught.value)
        assert "could run code" in told
        assert not {"weights_only", "False", "trust", "Re-running"} & set(told.replace("`", " ").split())
    assert not (tmp_path / "ran").exists()


def bomb(levels: int = 30) -> bytes:
    lines = ["a0: &a0 [x, x, x, x]"]
    lines += [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, levels)]
    return "\n".join(lines).encode()


def merged(levels: int = 30) -> bytes:
    lines = ["a0: &a0 {x: 1}"] + [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}, *a{n - 1}]}}" for n in range(1, levels)]
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (bomb(), "aliases stand for more values"),
        (merged(), "aliases stand for more values"),
        (b"a: &a [*a]", "aliases stand for more values"),
        (b"a: &a {b: *a}", "aliases stand for more values"),
        (b"a: 1\nb: {c: 1, d: 2, c: 3}", "key 'c' occurs twice"),
        (b"x: " + b"1" * 5000, "cannot be read"),
        (b"- " * 400_000, "larger than 0.25 MiB"),
    ],
)
def test_a_yaml_file_that_stands_for_more_than_a_config_is_one_line(tmp_path, data, words):
    (tmp_path / "x.yaml").write_bytes(data)
    with pytest.raises(ConfigError, match=words):
        read_yaml(tmp_path / "x.yaml", ConfigError)


def test_aliases_and_merges_of_a_config_are_read(tmp_path):
    (tmp_path / "x.yaml").write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: [*a, *a]\n")
    assert read_yaml(tmp_path / "x.yaml", ConfigError)["b"] == {"x": 1, "y": 3}


@pytest.mark.parametrize("reader", ["degradation", "recipe", "part", "architecture", "config"])
def test_every_reader_of_yaml_is_bounded(tmp_path, reader):
    from ffhqref.config.source import compose, preset, register
    from ffhqref.degradation.model import get_degradation
    from ffhqref.restorers.command.recipe import Recipe
    from ffhqref.zoo.dmdnet.config import DMDNetConfig
    from ffhqref.zoo.shared.architecture import read_architecture

    file = tmp_path / "restorer" / "mine.yaml"
    file.parent.mkdir()
    file.write_bytes(bomb())
    calls = {
        "degradation": lambda: get_degradation(str(file)),
        "recipe": lambda: Recipe.of(file),
        "part": lambda: preset("restorer", "mine"),
        "architecture": lambda: read_architecture(DMDNetConfig, file),
        "config": lambda: compose(["restorer=[mine]"]),
    }
    register([tmp_path])
    try:
        with pytest.raises(ConfigError, match=r"mine\.yaml.*aliases stand for more"):
            calls[reader]()
    finally:
        register([])
