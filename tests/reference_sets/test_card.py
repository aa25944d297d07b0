"""The data card: its numbers are the tables', it shows no image, and Croissant's own tool loads it."""

from __future__ import annotations

import json
import logging
import re

import numpy as np
import pandas as pd
import pytest

from ffhqref.core.errors import TableError
from ffhqref.reference_sets.card import describe, to_html, to_markdown, write_card
from ffhqref.reference_sets.options import CardOptions
from ffhqref.store import schemas, tables

HOSTILE = '<img src=x onerror=alert(1)> | "q" & co'


def workspace(root, *, licence="CC BY 4.0", distances=1.0):
    """Six images of two people and one alone, one broken; numbers chosen so that all counts differ."""
    names = list("abcdef")
    images = pd.DataFrame({"image_id": [*names, "g", "x", "y"]})
    images = images.assign(path=images["image_id"] + ".png", width=512, height=512, sha256="0" * 64, error=None)
    images.loc[images["image_id"] == "x", "error"] = "not an image"
    images.loc[images["image_id"] == "y", "error"] = "10x10 pixels, at least 64 a side are needed"
    identities = pd.DataFrame(
        {
            "image_id": [*names, "g"],
            "identity_id": pd.Series([0, 0, 1, 1, 1, 1, None], dtype="Int32"),
            "size": [2, 2, 4, 4, 4, 4, 1],
            "split": ["train", "train", "test", "test", "test", "test", "train"],
        }
    )
    references = pd.DataFrame(
        [
            ("a", "b", 0, 0.01, -4.0, "train"),
            ("b", "a", 0, 0.01, 4.0, "train"),
            ("c", "d", 0, 0.12, 25.0, "test"),
            ("c", "e", 1, 0.33, np.nan, "test"),
            ("d", "c", 0, 0.12, -25.0, "test"),
        ],
        columns=list(schemas.SPECS["references"].columns),
    )
    references["distance"] *= distances
    ages = pd.DataFrame({"image_id": ["a", "b", "c", "d"], "age": [30.0, 26.0, 5.0, 30.0], "source": "x.csv:age"})
    licences = pd.DataFrame({"image_id": ["a", "b", "c"], "author": ["Ann", "Bob", "Ann"]})
    licences = licences.assign(
        licence=["BY", HOSTILE, "BY"], licence_url=["https://e.org/", "javascript:x", "https://e.org/"]
    )
    licences["source_url"] = "https://e.org/photo"
    rows = [(name, "gender", value) for name, value in zip(names, "ffmmmf", strict=True)]
    rows += [(name, "yaw", str(value)) for name, value in zip(names, (-31.0, -9.5, 0.0, 4.0, 12.5, 48.0), strict=True)]
    rows += [(name, "person", f"Person {name}") for name in names]
    tables.write_table(root, "attributes", pd.DataFrame(rows, columns=["image_id", "attribute", "value"]))
    pairs = pd.DataFrame({"image_a": ["a"], "image_b": ["b"], "distance": [0.01]})
    facts = {"dataset": {"name": "mine", "licence": licence, "attribution": "me"}}
    tables.write_table(root, "images", images, {**tables.provenance(), **facts})
    for name, frame in (("identities", identities), ("references", references), ("ages", ages), ("pairs", pairs)):
        tables.write_table(root, name, frame, tables.provenance(config={"max_distance": 0.4}))
    tables.write_table(root, "licences", licences, tables.provenance())
    return root


def test_counts_are_the_tables(tmp_path):
    card = describe(workspace(tmp_path))
    assert dict(card.counts["train"]) == {"images": 2, "identities": 1, "targets": 2, "references": 2}
    assert dict(card.counts["val"]) == {"images": 0, "identities": 0, "targets": 0, "references": 0}
    assert dict(card.counts["test"]) == {"images": 4, "identities": 1, "targets": 2, "references": 3}
    assert dict(card.counts["all"]) == {"images": 6, "identities": 2, "targets": 4, "references": 5}
    assert dict(card.left_out) == {"not an image": 1, "too small": 1}
    assert card.unknown_ages == 3
    assert card.licences == (("BY", "https://e.org/", 2, 1), (HOSTILE, "javascript:x", 1, 1))
    assert card.settings["build.max_distance"] == "0.4"


def histogram_of(card, title):
    (found,) = [histogram for histogram in card.histograms if histogram.title == title]
    return found


def counts_of(card, title, split):
    histogram = histogram_of(card, title)
    return {name: count for name, count in zip(histogram.classes, histogram.counts[split], strict=True) if count}


def test_histograms_are_counted_by_hand(tmp_path):
    card = describe(workspace(tmp_path))
    assert counts_of(card, "References of a target", "test") == {"1": 1, "2": 1}
    assert counts_of(card, "Size of an identity", "test") == {"4": 1}
    assert counts_of(card, "Distance from target to reference", "train") == {"0.00": 2}
    assert counts_of(card, "Distance from target to reference", "test") == {"0.10": 2, "0.30": 1}
    assert counts_of(card, "Age gap between target and reference", "train") == {"2 to below 5": 2}
    assert counts_of(card, "Age gap between target and reference", "test") == {"20 and more": 2}
    assert counts_of(card, "Age", "test") == {"3-9": 1, "30-39": 1}


def test_attributes_are_counted_unless_they_name_people(tmp_path, monkeypatch):
    monkeypatch.setattr("ffhqref.reference_sets.card.MOST_KINDS", 4)  # six images: fewer kinds than numbers and names
    card = describe(workspace(tmp_path))
    assert counts_of(card, "Attribute: gender", "train") == {"f": 2}
    assert counts_of(card, "Attribute: gender", "test") == {"f": 1, "m": 3}
    assert counts_of(card, "Attribute: yaw", "train") == {"-40": 1, "-10": 1}
    assert counts_of(card, "Attribute: yaw", "test") == {"0": 2, "10": 1, "40": 1}
    assert not [histogram for histogram in card.histograms if "person" in histogram.title]


def test_plots_have_a_bar_a_count_and_no_rows_of_zeros(tmp_path):
    card = describe(workspace(tmp_path))
    sizes = histogram_of(card, "References of a target")
    assert sizes.splits == ("train", "test")
    assert sizes.rows == (("1", (2, 1)), ("2", (0, 1)))
    bars = {(bar.split, bar.told.split(":")[0]): bar.height for bar in sizes.plot.bars}
    assert bars["train", "1"] == pytest.approx(2 * bars["test", "1"], abs=0.2)
    assert bars["train", "2"] == 0
    page, text = to_html(card), to_markdown(card)
    assert page.count("<svg") == len(card.histograms)
    assert "1: 2 of train, 100.0 %" in page
    assert "10 and more" not in text


def test_what_the_makers_say_is_told_and_what_they_leave_open_too(tmp_path):
    about = CardOptions(title="Mine", licence="none", purpose="tests <b>", contact="me@e.org")
    write_card(workspace(tmp_path), about=about)
    text, page = ((tmp_path / name).read_text() for name in ("datacard.md", "datacard.html"))
    for told in ("Mine", "none", "tests &lt;b", "me@e.org", "not stated", "report/report.html"):
        assert told in text
        assert told in page
    assert json.loads((tmp_path / "croissant.json").read_text())["license"] == "none"


@pytest.mark.parametrize("scale", [1.0, 0.1, 1.7, 1e-3])
def test_every_distance_is_in_its_class_at_any_scale(tmp_path, scale):
    card = describe(workspace(tmp_path, distances=scale))
    histogram = histogram_of(card, "Distance from target to reference")
    lows = np.array([float(name) for name in histogram.classes])
    assert 4 <= len(lows) <= 11
    assert np.allclose(np.diff(lows), lows[1])
    distances = tables.read_table(tmp_path, "references").query("split == 'test'")["distance"].to_numpy(float)
    wanted = [(distances >= low).sum() - (distances >= low + lows[1]).sum() for low in lows]
    assert list(histogram.counts["test"]) == wanted


def test_nothing_from_tables_becomes_markup_and_no_picture_is_shown(tmp_path):
    write_card(workspace(tmp_path, licence=HOSTILE))
    page = (tmp_path / "datacard.html").read_text()
    assert "<img" not in page
    assert "&lt;img" in page
    assert "javascript:" not in page
    assert "data:" not in page
    assert "<script" not in page
    text = (tmp_path / "datacard.md").read_text()
    assert "![" not in text
    assert "<img" not in text
    assert "javascript" not in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
        bars = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(bars) == 1, block


def test_the_same_tables_give_the_same_card(tmp_path):
    first = [path.read_bytes() for path in write_card(workspace(tmp_path / "one"))]
    assert [path.read_bytes() for path in write_card(tmp_path / "one")] == first
    other = write_card(workspace(tmp_path / "two"))
    assert [path.read_bytes() for path in other][:2] == first[:2]  # croissant.json hashes files, which hold their time


def test_croissants_own_tool_loads_the_tables(tmp_path, caplog):
    mlcroissant = pytest.importorskip("mlcroissant")
    write_card(workspace(tmp_path))
    with caplog.at_level(logging.WARNING):
        loaded = mlcroissant.Dataset(jsonld=str(tmp_path / "croissant.json"))
    assert not loaded.metadata.issues.errors
    assert "context" not in caplog.text.lower()
    records = pd.DataFrame(list(loaded.records("references")))
    wanted = tables.read_table(tmp_path, "references")
    assert [name.decode() for name in records["references/target_id"]] == wanted["target_id"].tolist()
    assert np.allclose(records["references/distance"], wanted["distance"])


def test_croissant_lists_no_embeddings_and_right_hashes(tmp_path):
    from ffhqref.core.hashing import sha256_file

    root = workspace(tmp_path)
    vectors = pd.DataFrame({"image_id": ["a"], "embedder": ["net:1|crop"], "vector": [np.ones(3, np.float32)]})
    tables.write_table(root, "embeddings", vectors, tables.provenance())
    write_card(root, tmp_path / "elsewhere")
    found = json.loads((tmp_path / "elsewhere" / "croissant.json").read_text())
    assert "embeddings" not in json.dumps(found["recordSet"])
    for file in found["distribution"]:
        assert file["sha256"] == sha256_file(tmp_path / "elsewhere" / file["contentUrl"])
    assert "net:1\\|crop" in to_markdown(describe(root))


def test_without_a_built_set_there_is_no_card(tmp_path):
    with pytest.raises(TableError, match="'images' does not exist yet"):
        describe(tmp_path)
