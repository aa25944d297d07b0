"""Tables that users bring: each row goes to the image that it names, and what goes nowhere is told."""

from __future__ import annotations

import unicodedata

import pytest

from ffhqref.core.errors import DatasetError
from ffhqref.datasets import open_dataset
from ffhqref.datasets.ages import parse_age, read_ages
from ffhqref.datasets.attributes import read_attributes
from ffhqref.datasets.builtin import read_truth
from ffhqref.datasets.match import ImageMatcher

from .test_datasets import picture

DOTTED = {"kim": "kim.png", "kim.2010": "kim.2010.png", "kim.2014": "kim.2014.jpg", "ann.1": "sub/ann.1.png"}


@pytest.fixture
def table(tmp_path):
    def write(text: str, name: str = "x.csv"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_dot_in_an_id_is_part_of_it(table):
    years = read_ages(table("image_id,age\nkim.2010,20\n"), DOTTED).years
    assert dict(years) == {"kim.2010": 20.0}
    columns = read_attributes(table("image_id,hair\nkim.2014.jpg,red\nann.1,grey\n"), DOTTED).columns
    assert columns == {"hair": {"kim.2014": "red", "ann.1": "grey"}}
    assert read_truth(table("file,person\nkim.2010.png,K\n"), DOTTED)[0] == {"kim.2010": "K"}


@pytest.mark.parametrize("unknown", ["NA", "n/a", "–", "-", "", "nan", " N/A "])
def test_what_is_not_known_is_no_value_in_any_table(table, unknown):
    path = table(f"file,age,gender,person\nkim.png,{unknown},{unknown},{unknown}\nkim.2010.png,20,male,Na\n")
    assert read_ages(path, DOTTED).years == {"kim.2010": 20.0}
    assert read_attributes(path, DOTTED).columns["gender"] == {"kim.2010": "male"}
    assert read_truth(path, DOTTED)[0] == {"kim.2010": "Na"}
    dates = table(f"file,date_of_birth,taken\nkim.png,1990,{unknown}\nkim.2010.png,1990,2010\n", "dates.csv")
    assert set(read_ages(dates, DOTTED).years) == {"kim.2010"}


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("kim.2011", None),  # not kim
        ("kim.txt", None),
        ("/data/faces/kim.2010.JPG", "kim.2010"),
        ("sub/ann.1.png", "ann.1"),
        ("sub\\ann.1.png", "ann.1"),
        ("ann", None),
    ],
)
def test_a_name_is_never_cut_until_it_fits(name, found):
    assert ImageMatcher(DOTTED).find(name) == found


def test_paths_tell_apart_what_stems_do_not():
    matcher = ImageMatcher({"ann_001": "ann/001.png", "bob_001": "bob/001.png", "7": "7.jpg", "007": "007.png"})
    assert matcher.find("/data/CelebRef/bob/001.png") == "bob_001"
    assert matcher.find("eve/001.png") is None
    assert matcher.find("001.png") is None  # whose?
    assert (matcher.find("7.png"), matcher.find("007"), matcher.find("00007")) == ("7", "007", None)


def test_a_row_of_another_folder_is_another_image(table):
    """Names that are unique in the data set need not be so in a table of more people."""
    files = {"001": "ann/001.png", "002": "bob/002.png"}
    text = "file,age\nann/001.png,20\nann/002.png,30\nbob/001.png,40\nbob/002.png,50\n"
    ages = read_ages(table(text), files)
    assert ages.years == {"001": 20.0, "002": 50.0}
    assert ages.remarks == ("dataset.ages: 2 of 4 rows of x.csv match no image, first 'ann/002.png' in line 3",)
    moved = read_ages(table("file,age\nfaces/001.png,20\nfaces/002.png,50\n"), files)
    assert moved.years == ages.years, "folders of another layout say nothing"


@pytest.mark.parametrize(("there", "written"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_are_the_same_in_both_spellings(table, there, written):
    there, written = (unicodedata.normalize(form, "josé") for form in (there, written))
    files = {there: f"é/{there}.png".replace("é", there), "a": "a.png"}
    for name in (written, f"{written}.png", f"{written}/{written}.png"):
        assert read_ages(table(f"file,age\n{name},20\n"), files).years == {there: 20.0}


def test_a_long_number_is_no_image(table):
    assert read_ages(table(f"file,age\n{'9' * 5000},20\n007,30\n"), ["7"]).years == {"7": 30.0}


@pytest.mark.parametrize("text", ["2,5", "34,5", "1_0", "(2 5)"])
def test_ages_are_not_guessed(text):
    """2,5 is two and a half years to some, not the class of 2 to 5."""
    with pytest.raises(DatasetError, match="expected years or a class"):
        parse_age(text)


def test_rows_that_match_nothing_are_counted(table, tmp_path):
    for name in ("a", "b"):
        picture(tmp_path / "faces" / f"{name}.png")
    ages = table("image_id,age\na,20\nc,30\nd,40\n")
    truth = table("file,person\nb.png,B\nz.png,Z\n", "truth.csv")
    remarks = open_dataset("folder", path=tmp_path / "faces", ages=ages, truth=truth).remarks
    assert remarks == (
        "dataset.ages: 2 of 3 rows of x.csv match no image, first 'c' in line 3",
        "dataset.truth: 1 of 2 rows of truth.csv match no image, first 'z.png' in line 3",
    )


@pytest.mark.parametrize("read", [read_ages, read_attributes, read_truth])
def test_a_table_that_matches_nothing_is_refused(read, table):
    path = table("image_id,age,identity\nx_face,20,X\ny_face,30,Y\n")
    with pytest.raises(DatasetError, match=r"none of the 2 rows .* has 'x_face', the data set has 'ann\.1'"):
        read(path, DOTTED)


def test_fairface_names_are_understood_where_they_mean_one_image(table):
    rows = ["detected_faces/kim_face0.jpg,20-29", "detected_faces/ann.1_face0.jpg,3-9"]
    rows += [f"detected_faces/kim.2010_face{face}.jpg,30-39" for face in (0, 1)]  # two faces: whose age is it?
    ages = read_ages(table("\n".join(["face_name_align,age", *rows, ""])), DOTTED)
    assert dict(ages.years) == {"kim": 25.0, "ann.1": 6.5}
    assert "2 of 4 rows" in ages.remarks[0]


@pytest.mark.parametrize("text", ["70+", ">=70", "more than 70", "70-120", "70-100", "70 and over", "(70, 120)", "≥70"])
def test_open_classes_have_one_middle(text):
    assert parse_age(text) == 75.0


@pytest.mark.parametrize(
    ("text", "years"), [("90+", 90.0), ("80-89", 85.0), ("90-99", 95.0), ("0-2", 1.5), ("<3", 1.5), ("up to 2", 1.0)]
)
def test_closed_classes_stay_closed(text, years):
    assert parse_age(text) == years


@pytest.mark.parametrize("text", ["39-30", "young", "-5", "nan", "131"])
def test_ages_that_are_none(text):
    with pytest.raises(DatasetError, match="expected"):
        parse_age(text)


@pytest.mark.parametrize(
    ("born", "taken", "low", "high"),
    [
        ("1990-10-20", "1990", 0.0, 0.0),  # the middle of the year lies before the birth
        ("1990", "1990-02-01", 0.0, 0.0),
        ("1990-10-20", "1990-10", 0.0, 0.0),
        ("1990-10", "<=1990", 0.0, 0.0),
        ("1990", "1990", 0.0, 0.0),
        ("1980", "2010-07-01", 29.9, 30.1),
        ("1980-03", "2010-03-16", 29.9, 30.1),
    ],
)
def test_dates_of_low_precision(table, born, taken, low, high):
    years = read_ages(table(f"image_id,date_of_birth,taken\nkim,{born},{taken}\n"), DOTTED).years
    assert low <= years["kim"] <= high


def test_before_the_birth_is_refused(table):
    with pytest.raises(DatasetError, match="born 1990-10-20, taken 1989"):
        read_ages(table("image_id,date_of_birth,taken\nkim,1990-10-20,1989\n"), DOTTED)


def test_what_is_not_taken_from_a_folder_is_told(tmp_path):
    faces = tmp_path / "faces"
    for name in ("a.png", "b.jfif", "c.avif", "d.jpe", ".hidden.png"):
        picture(faces / name)
    for name in ("e.heic", "f.HEIC", "notes", ".DS_Store"):
        (faces / name).write_bytes(b"x")
    picture(tmp_path / "elsewhere" / "g.png")
    (faces / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    found = open_dataset("folder", path=faces)
    assert list(found.files) == ["a", "b", "c", "d"]
    (remark,) = found.remarks
    for words in (
        "2 .heic (first 'e.heic')",
        "1 file without ending",
        "2 hidden file",
        "1 linked folder (first 'linked')",
    ):
        assert words in remark
