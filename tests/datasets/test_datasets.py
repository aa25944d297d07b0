"""Data sets: what is listed, what is refused, and ages in every form."""

from __future__ import annotations

import errno
import gzip
import json
import os
import pathlib

import numpy as np
import pytest
from PIL import Image

from ffhqref.cases.lq import ImportStage, import_rows
from ffhqref.core.errors import ConfigError, DatasetError
from ffhqref.datasets import open_dataset
from ffhqref.datasets.ages import parse_age, read_ages
from ffhqref.datasets.attributes import attribute_of, attributes_frame, read_attributes
from ffhqref.datasets.stage import FileRow, ImageStage, file_rows
from ffhqref.engine import LocalEngine, run_stage
from ffhqref.faces.stage import AlignStage


def picture(path, side=80, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(side).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(values).convert(mode).save(path)


def test_sample_is_whole():
    data = open_dataset("sample")
    assert len(data.files) == len(data.ages) == len(data.truth) == 164
    assert "London" in data.attribution
    assert data.licence == "CC BY 4.0"


def test_folder_lists_pictures_below_it(tmp_path):
    for name in ("b.png", "sub/a.JPG", ".hidden/c.png", "notes.txt"):
        picture(tmp_path / name) if not name.endswith("txt") else (tmp_path / name).write_text("x")
    data = open_dataset("folder", path=tmp_path)
    assert dict(data.files) == {"a": "sub/a.JPG", "b": "b.png"}


def test_ffhq_takes_flat_and_thousands_folders_and_nothing_else(tmp_path):
    picture(tmp_path / "00000" / "00007.png")
    picture(tmp_path / "69000" / "69999.png")
    assert list(open_dataset("ffhq", path=tmp_path).files) == ["00007", "69999"]
    picture(tmp_path / "holiday.png")
    with pytest.raises(DatasetError, match=r"1 images .* not named like FFHQ's .* holiday\.png"):
        open_dataset("ffhq", path=tmp_path)


def test_two_files_with_one_stem_are_both_named(tmp_path):
    picture(tmp_path / "x.png")
    picture(tmp_path / "x.jpg")
    with pytest.raises(DatasetError, match=r"two images have the id 'x': x\.jpg and x\.png"):
        open_dataset("folder", path=tmp_path)


def test_ids_keep_folders_where_names_repeat_and_tables_and_folders_name_people(tmp_path):
    for file in ("kim/000.png", "kim/001.png", "lee/000.png", "lee/2010/000.png"):
        picture(tmp_path / "album" / file)
    table = tmp_path / "people.csv"
    table.write_text("file,person\nkim/000.png,Kim\nkim_001,Kim\nlee/000.png,Lee\n")
    data = open_dataset("folder", path=tmp_path / "album", truth=table)
    assert data.files == {
        "kim_000": "kim/000.png",
        "kim_001": "kim/001.png",
        "lee_000": "lee/000.png",
        "lee_2010_000": "lee/2010/000.png",
    }
    assert data.truth == {"kim_000": "Kim", "kim_001": "Kim", "lee_000": "Lee"}
    assert any("ids are made of folders and names" in remark for remark in data.remarks)
    folders = open_dataset("folder", path=tmp_path / "album", truth="folders")
    assert folders.truth == {"kim_000": "kim", "kim_001": "kim", "lee_000": "lee", "lee_2010_000": "lee/2010"}

    picture(tmp_path / "flat" / "a.png")
    with pytest.raises(DatasetError, match="no image lies in a folder of its person"):
        open_dataset("folder", path=tmp_path / "flat", truth="folders")


def test_absent_empty_and_unnamed_folders(tmp_path):
    with pytest.raises(DatasetError, match="no such folder"):
        open_dataset("folder", path=tmp_path / "absent")
    with pytest.raises(DatasetError, match="no image"):
        open_dataset("folder", path=tmp_path)
    with pytest.raises(ConfigError, match=r"dataset\.path="):
        open_dataset("folder", path=None)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DatasetError, match="not a folder"):
        open_dataset("folder", path=tmp_path / "file")
    with pytest.raises(ConfigError, match="Did you mean 'sample'"):
        open_dataset("sampel")


def test_bad_pictures_are_rows_with_a_reason(tmp_path):
    picture(tmp_path / "good.png")
    picture(tmp_path / "grey.png", mode="L")
    picture(tmp_path / "anim.gif", mode="P")
    picture(tmp_path / "alpha.png", mode="RGBA")
    picture(tmp_path / "small.png", side=10)
    picture(tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:3000])
    (tmp_path / "text.png").write_text("hello")
    data = open_dataset("folder", path=tmp_path)
    stage = ImageStage(data.root)
    found = {
        row.image_id: row
        for row in run_stage(
            stage, file_rows(data.root, data.files), engine=LocalEngine(1), journal_dir=tmp_path / ".journal"
        )
    }
    assert {name for name, row in found.items() if row.error is None} == {"good", "grey", "anim", "alpha"}
    assert "10x10 pixels" in found["small"].error
    assert "cannot be read" in found["cut"].error
    assert found["text"].error == "not an image"
    assert found["good"].width == 80
    assert len(found["text"].sha256) == 64


def test_a_changed_picture_is_opened_again(tmp_path):
    picture(tmp_path / "a.png")
    for side in (80, 90):
        picture(tmp_path / "a.png", side=side)
        data = open_dataset("folder", path=tmp_path)
        (row,) = run_stage(
            ImageStage(data.root), file_rows(data.root, data.files), engine=LocalEngine(1), journal_dir=tmp_path / ".j"
        )
        assert row.width == side


@pytest.mark.parametrize(
    ("text", "years"),
    [("34.5", 34.5), ("0", 0), ("0-2", 1.5), ("30-39", 35), ("10–14", 12.5), ("70+", 75), ("more than 70", 75)],
)
def test_ages_and_classes(text, years):
    assert parse_age(text) == years


@pytest.mark.parametrize("text", ["old", "-3", "131", "1e9", "nan"])
def test_impossible_ages_are_refused(text):
    with pytest.raises(DatasetError, match="age"):
        parse_age(text)


def test_age_tables_in_the_forms_people_have(tmp_path):
    ids = ["00000", "00001", "00042"]
    ours = tmp_path / "ours.csv"
    ours.write_text("image_id,age\n00000,3\n00042,\n99999,5\n")
    assert dict(read_ages(ours, ids).years) == {"00000": 3.0}
    fair = tmp_path / "fairface.csv"
    fair.write_text("face_name_align,race,gender,age\ndetected_faces/00001.png,White,Male,20-29\n")
    assert dict(read_ages(fair, ids).years) == {"00001": 25.0}
    aging = tmp_path / "ffhq_aging_labels.csv"
    aging.write_text("image_number,age_group,age_group_confidence\n0,0-2,1.0\n42,50-69,0.8\n")
    assert dict(read_ages(aging, ids).years) == {"00000": 1.5, "00042": 60.0}
    packed = tmp_path / "ffhq_features.csv.gz"
    packed.write_bytes(gzip.compress(b"ffhq_id,age,gender\n00001,26.0,female\n"))
    assert dict(read_ages(packed, ids).years) == {"00001": 26.0}
    folder = tmp_path / "json"
    folder.mkdir()
    (folder / "00042.json").write_text(json.dumps([{"faceAttributes": {"age": 61.0}}]))
    (folder / "00001.json").write_text("[]")
    assert dict(read_ages(folder, ids).years) == {"00042": 61.0}


def test_ages_from_dates(tmp_path):
    table = tmp_path / "people.csv"
    table.write_text("file,date_of_birth,taken\na.jpg,1965-07-22,2021\nb.jpg,1965-07-22,<=2014\nc.jpg,,2014\n")
    years = read_ages(table, ["a", "b", "c"]).years
    assert set(years) == {"a", "b"}
    assert years["a"] - years["b"] == pytest.approx(7.0)
    assert years["a"] == pytest.approx(2021.5 - (1965 + 202 / 365.25))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("name,age\na,3\n", "line 1: columns"),
        ("image_id,age\na,3\na,4\n", "line 3: 'a' occurs twice"),
        ("image_id,age\na,3\nb,young\n", "line 3: age 'young'"),
        ("image_id,date_of_birth,taken\na,soon,2014\n", "line 2: date_of_birth 'soon'"),
        ("image_id,date_of_birth,taken\na,2015-01-01,2014\n", "line 2: born 2015-01-01"),
    ],
)
def test_bad_age_tables_name_the_line(tmp_path, content, said):
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(DatasetError) as caught:
        read_ages(tmp_path / "x.csv", ["a", "b"])
    assert said in str(caught.value)


def test_features_of_all_ffhq_are_read(shared):
    ages = read_ages(shared / "ffhq" / "ffhq_features.csv.gz", [f"{number:05d}" for number in range(70000)])
    assert len(ages.years) > 69000
    assert ages.source == "ffhq_features.csv.gz:age"


def test_attributes_of_a_table_reach_the_data_set(tmp_path):
    for name in ("00001", "00042"):
        picture(tmp_path / "images" / f"{name}.png")
    table = tmp_path / "labels.csv.gz"
    table.write_bytes(
        gzip.compress(b"image_number,gender,head_yaw,person\n1,male,-12.5,Ann\n42,female,,Bo\n77,male,3,Cy\n")
    )
    data = open_dataset("ffhq", path=tmp_path / "images", attributes=table)
    assert data.attributes == {"gender": {"00001": "male", "00042": "female"}, "head_yaw": {"00001": "-12.5"}}
    frame = attributes_frame(data.attributes)
    assert sorted(frame.values.tolist())[0] == ["00001", "gender", "male"]
    assert attribute_of(data.attributes, "gender")["00042"] == "female"
    with pytest.raises(ConfigError, match="Did you mean 'gender'"):
        attribute_of(data.attributes, "gendre")
    with pytest.raises(ConfigError, match=r"dataset\.attributes=FILE"):
        attribute_of({}, "gender")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("name,gender\na,f\n", "line 1: columns"),
        ("image_id\na\n", "line 1: columns"),
        ("image_id,gender\na,f\na,m\n", "line 3: 'a' occurs twice"),
    ],
)
def test_bad_attribute_tables_name_the_line(tmp_path, content, said):
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(DatasetError) as caught:
        read_attributes(tmp_path / "x.csv", ["a", "b"])
    assert said in str(caught.value)


def refusing(monkeypatch, *names):
    """Refuse to open files of these names, as ``chmod 000`` does for everybody but root."""
    opened = os.open

    def refuse(path, *arguments, **options):
        if pathlib.Path(path).name in names:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)


def test_a_picture_that_may_not_be_read_is_a_row_and_is_tried_again(tmp_path, monkeypatch):
    picture(tmp_path / "data" / "good.png")
    picture(tmp_path / "data" / "shut.png")
    data = open_dataset("folder", path=tmp_path / "data")

    def opened():
        return run_stage(
            ImageStage(data.root), file_rows(data.root, data.files), engine=LocalEngine(1), journal_dir=tmp_path / "j"
        )

    with monkeypatch.context() as patch:
        refusing(patch, "shut.png")
        good, shut = opened()
    assert good.error is None
    assert "Permission denied" in shut.error
    assert shut.sha256 == ""
    assert opened()[1].error is None, "permissions change neither length nor time"


def test_alignment_takes_a_picture_that_may_not_be_read_as_a_row(tmp_path, monkeypatch):
    picture(tmp_path / "shut.png")
    stage = object.__new__(AlignStage)
    stage.root, stage.out, stage._detector = tmp_path, tmp_path / "out", lambda image: []
    refusing(monkeypatch, "shut.png")
    (row,) = stage.process([FileRow("shut", "shut.png", 0, 0)])
    assert "Permission denied" in row.error
    assert row.sha256 == ""
    assert not stage.intact({}, row)


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"new\nline.png", b"tab\t/x.png"])
def test_names_that_tables_cannot_hold_are_refused(tmp_path, name):
    path = pathlib.Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name)))  # noqa: PTH118
    try:
        picture(path)
    except OSError:
        pytest.skip("this file system takes no such name")
    with pytest.raises(DatasetError, match=r"file name '(caf|new|tab)\\.*: rename it") as caught:
        open_dataset("folder", path=tmp_path)
    assert str(caught.value).isprintable()


def test_other_letters_and_odd_spaces_are_fine(tmp_path):
    for name in ("Zoë", "林", "5\u202fPM", "no\xa0break"):
        picture(tmp_path / f"{name}.png")
    assert len(open_dataset("folder", path=tmp_path).files) == 4


def test_a_link_that_leads_nowhere_is_a_row_with_a_reason(tmp_path):
    picture(tmp_path / "data" / "a.png")
    (tmp_path / "data" / "b.png").symlink_to(tmp_path / "later.png")
    (tmp_path / "data" / "loop.png").symlink_to("loop.png")

    def opened():
        data = open_dataset("folder", path=tmp_path / "data")
        rows = file_rows(data.root, data.files)
        return run_stage(ImageStage(data.root), rows, engine=LocalEngine(1), journal_dir=tmp_path / "j")

    assert [row.error is None for row in opened()] == [True, False, False]
    assert "no such file" in opened()[1].error
    rows = import_rows("b", tmp_path / "data", None).rows
    assert [row.error is None for row in ImportStage(tmp_path).process(list(rows.values()))] == [True, False, False]
    picture(tmp_path / "later.png")
    assert opened()[1].error is None


def test_truth_that_is_no_text_and_rows_that_are_too_short(tmp_path):
    picture(tmp_path / "data" / "a.png")
    picture(tmp_path / "data" / "b.png")
    with pytest.raises(DatasetError, match="not UTF-8"):
        open_dataset("folder", path=tmp_path / "data", truth=tmp_path / "data" / "a.png")
    (tmp_path / "truth.csv").write_text("identity,image_id\n1,a\n2\n")
    with pytest.raises(DatasetError, match="line 3: 1 cells, expected 2"):
        open_dataset("folder", path=tmp_path / "data", truth=tmp_path / "truth.csv")
    (tmp_path / "truth.csv").write_text("identity,image_id\n1 ,a\n ,b\n")
    data = open_dataset("folder", path=tmp_path / "data", truth=tmp_path / "truth.csv")
    assert data.truth == {"a": "1"}


def test_paths_that_are_no_text(tmp_path, monkeypatch):
    picture(tmp_path / "3" / "a.png")
    monkeypatch.chdir(tmp_path)
    assert list(open_dataset("folder", path=3).files) == ["a"]
    for path in (["a", "b"], {"a": 1}, True):
        with pytest.raises(ConfigError, match=r"path=.*: expected (one|a) path"):
            open_dataset("folder", path=path)


@pytest.mark.parametrize("key", ["ages", "attributes", "json"])
def test_a_number_is_a_name_and_a_list_is_refused_for_every_file(tmp_path, key):
    picture(tmp_path / "00007.png")
    with pytest.raises(DatasetError, match="no such file: 3"):
        open_dataset("ffhq", path=tmp_path, **{key: 3})
    with pytest.raises(ConfigError, match=rf"{key}=\['x'\]: expected (one|a) path"):
        open_dataset("ffhq", path=tmp_path, **{key: ["x"]})


def test_a_replaced_picture_of_the_same_size_and_time_is_noticed(tmp_path):
    picture(tmp_path / "a.png")
    data = open_dataset("folder", path=tmp_path)
    stage, before = ImageStage(tmp_path), file_rows(data.root, data.files)
    facts = (tmp_path / "a.png").stat()
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes())
    os.utime(tmp_path / "a.png", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert stage.key(file_rows(data.root, data.files)[0]) != stage.key(before[0])
