"""CelebA-HQ, CelebRef-HQ and FFHQ's own metadata: how files become ids, truth and credits."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from ffhqref.core.errors import DatasetError
from ffhqref.datasets import open_dataset
from ffhqref.datasets.stage import licences_frame
from ffhqref.store import tables


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (80, 80)).save(path)


def test_celeba_hq_takes_numbers_with_and_without_zeros(tmp_path):
    for name in ("0.jpg", "17.jpg", "29999.jpg", "00005.jpg"):
        picture(tmp_path / name)
    data = open_dataset("celeba_hq", path=tmp_path)
    assert dict(data.files) == {"0": "0.jpg", "17": "17.jpg", "29999": "29999.jpg", "00005": "00005.jpg"}
    (remark,) = data.remarks
    assert "4 images" in remark
    assert "30000 images" in remark


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("30000.jpg", "30000.jpg .* not named like"),
        ("mask_12.png", "mask_12.png .* not named like"),
        ("-3.jpg", "not named like"),
        ("00007.jpg", "00007.jpg and 7.jpg .* both image 7"),
    ],
)
def test_celeba_hq_refuses_what_is_none_of_it(tmp_path, name, said):
    picture(tmp_path / "7.jpg")
    picture(tmp_path / name)
    with pytest.raises(DatasetError, match=said):
        open_dataset("celeba_hq", path=tmp_path)


def test_celebref_hq_ids_are_unique_over_people(tmp_path):
    for name in ("12/0.png", "12/1.png", "3/0.png", "3/5.jpg"):
        picture(tmp_path / name)
    data = open_dataset("celebref_hq", path=tmp_path)
    assert dict(data.files) == {"12_0": "12/0.png", "12_1": "12/1.png", "3_0": "3/0.png", "3_5": "3/5.jpg"}
    assert dict(data.truth) == {"12_0": "12", "12_1": "12", "3_0": "3", "3_5": "3"}
    (remark,) = data.remarks
    assert "4 images of 2 people" in remark
    assert "10555 images of 1005 people" in remark


def test_celebref_hq_refuses_pictures_of_nobody_and_clashing_ids(tmp_path):
    picture(tmp_path / "a" / "b_c.png")
    picture(tmp_path / "a_b" / "c.png")
    with pytest.raises(DatasetError, match=r"id 'a_b_c': a/b_c\.png and a_b/c\.png"):
        open_dataset("celebref_hq", path=tmp_path)
    (tmp_path / "a_b" / "c.png").unlink()
    picture(tmp_path / "loose.png")
    with pytest.raises(DatasetError, match=r"loose\.png lies in .* itself"):
        open_dataset("celebref_hq", path=tmp_path)


def ffhq_entry(author, licence):
    """One image of ffhq-dataset-v2.json, in the form its README tells."""
    file = {"file_url": "u", "file_path": "p", "file_size": 1, "file_md5": "0", "pixel_md5": "1"}
    return {
        "category": "training",
        "metadata": {
            "photo_url": f"https://example.org/{author}",
            "photo_title": "DSCF0899.JPG",
            "author": author,
            "country": "",
            "license": licence,
            "license_url": "https://example.org/licence",
            "date_uploaded": "2007-08-16",
            "date_crawled": "2018-10-10",
        },
        "image": {**file, "face_landmarks": [[1.0, 2.0]] * 68},
        "thumbnail": file,
        "in_the_wild": {**file, "face_rect": [0, 0, 1, 1], "face_landmarks": [[1.0, 2.0]] * 68},
    }


def test_ffhq_json_becomes_the_licences_table(tmp_path):
    for number in (0, 42):
        picture(tmp_path / "images" / f"{number:05d}.png")
    meta = tmp_path / "ffhq-dataset-v2.json"
    entries = {"0": ffhq_entry("Ann", "Attribution License"), "1": ffhq_entry("Bob", "x"), "42": ffhq_entry("Éa", "")}
    meta.write_text(json.dumps(entries), encoding="utf-8")
    data = open_dataset("ffhq", path=tmp_path / "images", json=meta)
    tables.write_table(tmp_path, "licences", licences_frame(data))
    frame = tables.read_table(tmp_path, "licences")
    assert frame["image_id"].tolist() == ["00000", "00042"]
    assert frame["author"].tolist() == ["Ann", "Éa"]
    assert frame["licence"].tolist() == ["Attribution License", ""]
    assert frame["source_url"].tolist() == ["https://example.org/Ann", "https://example.org/Éa"]


def test_a_set_without_credits_gives_an_empty_table(tmp_path):
    tables.write_table(tmp_path, "licences", licences_frame(open_dataset("sample")))
    assert tables.read_table(tmp_path, "licences").empty


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "expected one object"),
        ("{}", "image 00000 is not in the file"),
        ('{"0": {"metadata": {"author": "x"}}}', "image 00000 has no metadata with author and license"),
    ],
)
def test_a_foreign_json_is_refused(tmp_path, content, said):
    picture(tmp_path / "images" / "00000.png")
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(DatasetError, match=said):
        open_dataset("ffhq", path=tmp_path / "images", json=tmp_path / "x.json")
    with pytest.raises(DatasetError, match=r"dataset\.json"):
        open_dataset("ffhq", path=tmp_path / "images", json=tmp_path / "absent.json")
