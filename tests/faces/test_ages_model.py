"""Ages from a network: insightface's reading of a genderage file, and a plug-in's model.

The real genderage file is not here (non-commercial, from insightface's packs); a network of the same form stands for
it, whose answer is known in closed form.
"""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from ffhqref.core.errors import ConfigError, WeightsError
from ffhqref.core.hashing import sha256_file
from ffhqref.datasets import Dataset
from ffhqref.datasets.stage import ImageRow, ages_frame
from ffhqref.engine import LocalEngine, run_stage
from ffhqref.faces import ages
from ffhqref.faces.ages import ALIGNED_BOX, AgeStage, make_age_model
from ffhqref.store import tables

from ..onnx_networks import genderage


def years_of(value):
    """What insightface makes of a pixel value: (x - 127.5) / 128, times 100, in whole years."""
    return round((value - 127.5) / 128 * 100)


def test_insightface_reads_a_plain_face_as_in_closed_form(tmp_path):
    model = make_age_model("insightface", path=genderage(tmp_path / "genderage.onnx"))
    images = np.full((2, 512, 512, 3), 200, np.uint8)
    images[1] = (180, 0, 0)  # red: channels in the wrong order would give a negative age
    assert model(images).tolist() == [years_of(200), years_of(180)]


@pytest.mark.parametrize(("row", "column"), [(48, 48), (30, 70), (80, 20)])
def test_the_network_sees_one_and_a_half_times_the_face_box(tmp_path, row, column):
    left, top, right, bottom = ALIGNED_BOX
    side = 1.5 * max(right - left, bottom - top)
    x = (left + right) / 2 + (column - 48) / 96 * side
    y = (top + bottom) / 2 + (row - 48) / 96 * side
    model = make_age_model("insightface", path=genderage(tmp_path / "genderage.onnx", row, column))
    across = np.broadcast_to(128 + np.arange(512)[None, :, None] / 4, (512, 512, 3)).astype(np.uint8)
    assert abs(model(across[None])[0] - years_of(128 + x / 4)) <= 1
    assert abs(model(across.transpose(1, 0, 2)[None])[0] - years_of(128 + y / 4)) <= 1


def test_a_pack_folder_finds_its_network_and_others_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"ages\.path"):
        make_age_model("insightface")
    with pytest.raises(WeightsError, match="is no file"):
        make_age_model("insightface", path=tmp_path / "absent.onnx")
    with pytest.raises(WeightsError, match="holds 0 files"):
        make_age_model("insightface", path=tmp_path)
    genderage(tmp_path / "genderage.onnx")
    assert "genderage" in make_age_model("insightface", path=tmp_path).signature
    (tmp_path / "genderage.onnx").write_bytes(b"no network")
    with pytest.raises(WeightsError, match="no usable ONNX network"):
        make_age_model("insightface", path=tmp_path)
    with pytest.raises(ConfigError, match="Did you mean 'insightface'"):
        make_age_model("insightfase")


def test_another_network_is_no_age_model(shared):
    with pytest.raises(WeightsError, match="genderage"):
        make_age_model("insightface", path=shared / "models" / "edgeface_xs.onnx")


def test_the_stage_estimates_records_and_remembers(tmp_path, monkeypatch):
    path = genderage(tmp_path / "genderage.onnx")
    rows = []
    for name, value in (("a", 200), ("b", 160), ("young", 100), ("broken", 0)):
        Image.new("RGB", (512, 512), (value,) * 3).save(tmp_path / f"{name}.png")
        if name == "broken":
            (tmp_path / f"{name}.png").write_bytes(b"x")
        file = tmp_path / f"{name}.png"
        rows.append(ImageRow(name, file.name, sha256_file(file)))
    stage = AgeStage(tmp_path, "insightface", {"path": str(path)})
    found = run_stage(stage, rows, engine=LocalEngine(1), journal_dir=tmp_path / "j")
    assert [row.age for row in found] == [years_of(200), years_of(160), None, None]
    assert "years" in found[2].error  # below the network's range
    assert "not an image" in found[3].error
    again = AgeStage(tmp_path, "insightface", {"path": str(path)})
    monkeypatch.setattr(again, "process", None)
    assert run_stage(again, rows, engine=LocalEngine(1), journal_dir=tmp_path / "j") == found


class PlugIn:
    """What another package would register."""

    def __init__(self, years=30.0):
        self.signature, self.years = "mine:1", years

    def __call__(self, images):
        return np.full(len(images), self.years, np.float32)


def test_a_plug_in_is_found_by_its_entry_point(monkeypatch):
    import importlib.metadata

    point = importlib.metadata.EntryPoint("mine", f"{__name__}:PlugIn", "ffhqref.age_models")
    monkeypatch.setattr(type(point), "load", lambda self: PlugIn)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point] * (group == point.group))
    monkeypatch.setattr(ages.AGE_MODELS, "_plugins", None)
    model = make_age_model("mine", years=41)
    assert model(np.zeros((2, 512, 512, 3), np.uint8)).tolist() == [41, 41]
    with pytest.raises(ConfigError, match="age model 'mine'"):
        make_age_model("mine", path="x")
    monkeypatch.setattr(ages.AGE_MODELS, "_plugins", None)


def test_known_ages_win_and_every_age_has_its_source(tmp_path):
    data = Dataset("folder", tmp_path, {"a": "a.png", "b": "b.png"}, ages={"b": 50.0}, age_source="people.csv:age")
    tables.write_table(tmp_path, "ages", ages_frame(data, {"a": 30.0, "b": 44.0}, "mine:1"))
    frame = tables.read_table(tmp_path, "ages")
    assert frame.values.tolist() == [["a", 30.0, "mine:1"], ["b", 50.0, "people.csv:age"]]
