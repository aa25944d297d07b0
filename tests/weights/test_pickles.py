"""Checkpoints that name foreign classes: tensors are read, nothing is imported, called, made or filled."""

import builtins
import io
import json
import pickle
import sys
import types
import zipfile

import pytest
import torch

from ffhqref.core.errors import WeightsError
from ffhqref.weights.tensors import load_tensors, opened, scan

PLACE = "old_lightning_callbacks"


@pytest.fixture
def foreign(monkeypatch):
    """A module of the name of Lightning's, to write checkpoints with; gone when they are read."""

    def make(name, **members):
        module = types.ModuleType(name)
        monkeypatch.setitem(sys.modules, name, module)
        for key, value in members.items():
            value.__module__, value.__qualname__ = name, key
            setattr(module, key, value)
        return module

    return make


def lightning_file(path, foreign, monkeypatch, **more):
    class ModelCheckpoint:
        pass

    foreign(PLACE, ModelCheckpoint=ModelCheckpoint)
    content = {
        "callbacks": {ModelCheckpoint: {"best_model_score": torch.tensor(1.0), "best_model_path": "a.ckpt"}},
        "optimizer_states": [{"state": {}, "param_groups": [{"lr": 1e-4, "betas": (0.5, 0.9)}]}],
        "state_dict": {"layer.weight": torch.arange(6.0).view(2, 3), "layer.bias": torch.ones(2, dtype=torch.half)},
        **more,
    }
    torch.save(content, path)
    monkeypatch.delitem(sys.modules, PLACE)
    return content["state_dict"]


def test_classes_as_keys_do_not_hide_the_tensors(tmp_path, foreign, monkeypatch):
    path = tmp_path / "old.ckpt"
    wanted = lightning_file(path, foreign, monkeypatch)
    real, asked = builtins.__import__, []
    monkeypatch.setattr(builtins, "__import__", lambda name, *rest: asked.append(name) or real(name, *rest))
    found = load_tensors(path, wrappers=("state_dict",))
    assert PLACE not in {*asked, *sys.modules}
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    with pytest.raises(WeightsError, match="no tensors"):  # the outer level has none of its own
        load_tensors(path)
    with opened(path) as name, pytest.raises(WeightsError, match="more than tensors"):
        scan(name, path)  # what is handed on to another unpickler must not name foreign classes


@pytest.mark.golden
def test_the_golden_file_of_an_old_lightning(golden):
    folder = golden / "daefr"
    if not (folder / "lightning_stub.ckpt").is_file():
        pytest.skip("no such file in this golden folder")
    cases = json.loads((folder / "cases.json").read_text())
    file = next(case["checkpoint"] for case in cases if case["checkpoint"])
    whole = load_tensors(folder / file, wrappers=("state_dict",))
    found = load_tensors(folder / "lightning_stub.ckpt", wrappers=("state_dict",))
    assert found
    assert all(torch.equal(value, whole[name]) for name, value in found.items())


MARK = "raise SystemExit('ran')"
HOSTILE = {
    "called": b"c{place}\nX\n(X\x17\x00\x00\x00" + MARK.encode() + b"tR.",
    "a builtin called": b"cbuiltins\nexec\n(X\x17\x00\x00\x00" + MARK.encode() + b"tR.",
    "of os, only named": b"}cos\nsystem\nK\x01s.",
    "made": b"c{place}\nX\n)\x81.",
    "made by a rebuilding function": b"ctorch._tensor\n_rebuild_from_type_v2\n(c{place}\nX\nctorch\nTensor\n))tR.",
    "filled": b"c{place}\nX\n}X\x01\x00\x00\x00aK\x01sb.",
    "as a dictionary": b"c{place}\nX\nX\x01\x00\x00\x00aK\x01s.",
    "by the old opcode": b"(i{place}\nX\n.",
    "by its stack": b"\x8c\x05posix\x8c\x06system\x93.",
    "a module of ours": b"cffhqref.weights.pickles\nread_checkpoint\n(X\x01\x00\x00\x00atR.",
    "the stand-in itself": b"cffhqref.weights.pickles\nMention\n(X\x03\x00\x00\x00a.btR.",
}


@pytest.mark.parametrize("pickled", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("old", [False, True], ids=["zip", "old format"])
def test_whatever_is_done_with_a_foreign_name_is_refused_in_one_line(pickled, old, tmp_path, foreign):
    foreign("hostile_module", X=lambda *_: pytest.fail("ran"))
    data = b"\x80\x02" + pickled.replace(b"{place}", b"hostile_module")
    path = tmp_path / "hostile.ckpt"
    if old:
        head = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
        path.write_bytes(b"".join([*head, data, pickle.dumps([], 2)]))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in (("data.pkl", data), ("byteorder", b"little"), ("version", b"3\n")):
                archive.writestr(f"hostile/{name}", content)
    with pytest.raises(WeightsError) as caught:
        load_tensors(path, wrappers=("state_dict",))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_call_beside_a_mention_is_refused_as_before(tmp_path, foreign, monkeypatch):
    class Bomb:
        def __reduce__(self):
            return (io.open, (str(tmp_path / "ran"), "w"))

    path = tmp_path / "old.ckpt"
    lightning_file(path, foreign, monkeypatch, bomb=Bomb())
    with pytest.raises(WeightsError, match=r"holds more than tensors and was refused.*save its tensors alone"):
        load_tensors(path, wrappers=("state_dict",))
    assert not (tmp_path / "ran").exists()
