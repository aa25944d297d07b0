"""Whatever a parser raises is one line of ours, and a refused pickle is never explained with how to let it run."""

from __future__ import annotations

import os
import pickle

import pytest

from ffhqref.core.errors import ConfigError, DatasetError
from ffhqref.core.parsing import load_reason, parsing, read_json, read_yaml


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
