"""The build's own options as a user meets them: data card, review page, exclusions, balance, resumed embeddings."""

from __future__ import annotations

import csv
import json
import re

import pytest
from PIL import Image

from ffhqref.store import tables

SMALL = ("dataset=folder", "dataset.test=2", "dataset.val=1", "engine.workers=2")


@pytest.fixture
def build(ffhqref, few_faces):
    """Run the build over `few_faces`; return what it said."""

    def run(*arguments):
        done = ffhqref("build", *SMALL, f"dataset.path={few_faces}", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stderr

    return run


def files_of(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def test_card_review_and_exclusions(build, ffhqref, few_faces, tmp_path):
    said = build("review=true")
    root = ffhqref.folder / "workspace"
    assert str(root / "datacard.md") in said
    page = (root / "review_test.html").read_text()
    shown = json.loads(re.search(r'id="data">(.*?)</script>', page, re.S).group(1))
    before = tables.read_table(root, "references").query("split == 'test'")
    assert {target["id"] for target in shown["targets"]} == set(before["target_id"])
    counts = before["target_id"].nunique()
    assert re.search(rf"\| test \| \d+ \| 2 \| {counts} \| {len(before)} \|", (root / "datacard.md").read_text())

    written = files_of(root)
    assert "embed:" not in build("review=true")  # nothing is embedded again
    assert files_of(root) == written

    gone = before["target_id"].iloc[0]
    with (tmp_path / "exclusions.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("target_id", "reference_id", "verdict"), (gone, "", "reject")])
    build(f"exclusions={tmp_path / 'exclusions.csv'}")
    after = tables.read_table(root, "references").query("split == 'test'")
    assert set(before["target_id"]) - set(after["target_id"]) == {gone}
    assert gone in set(after["reference_id"])


@pytest.mark.slow
def test_test_is_balanced_over_an_attribute(build, ffhqref, few_faces, sample_folder, tmp_path):
    """Two of six people are alike in a label; a test set of two people must take one of each label."""
    with (sample_folder / "metadata.csv").open() as stream:
        person = {row["file"].removesuffix(".jpg"): row["identity"] for row in csv.DictReader(stream)}
    people = sorted({person[path.stem] for path in few_faces.iterdir()})
    label = {name: "rare" if who in people[:2] else "common" for name, who in person.items()}
    with (tmp_path / "labels.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("image_id", "kind"), *label.items()])
    for seed in (1, 2):
        build(f"dataset.attributes={tmp_path / 'labels.csv'}", "balance=kind", f"seed={seed}")
        root = ffhqref.folder / "workspace"
        test = tables.read_table(root, "identities").query("split == 'test'")
        assert {label[name] for name in test["image_id"]} == {"rare", "common"}
    assert "## Attribute: kind" in (root / "datacard.md").read_text()


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("exclusions=absent.csv", "no such file: absent.csv"),
        ("review=tset", "expected true"),
        ("ages.model=insightface", "ages.path="),
    ],
)
def test_a_wrong_option_is_one_line_before_any_work(ffhqref, few_faces, argument, said):
    done = ffhqref("build", *SMALL, f"dataset.path={few_faces}", argument)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list((ffhqref.folder / "workspace" / "tables").glob("*.parquet"))


def test_known_people_are_built_and_found_valid(build, ffhqref, few_faces, sample_folder, tmp_path):
    with (sample_folder / "metadata.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream) if (few_faces / row["file"]).exists()]
    person = {row["file"].partition(".")[0]: row["identity"] for row in rows}
    swapped = sorted(person)[0]
    person[swapped] = next(who for who in sorted(person.values()) if who != person[swapped])
    with (tmp_path / "people.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("file", "person"), *((name, who) for name, who in person.items())])
    said = build(f"dataset.truth={tmp_path / 'people.csv'}", "build.identity=truth")
    assert f"identities from truth: {len(person)} images of 6 people" in said
    root = ffhqref.folder / "workspace"
    identities = tables.read_table(root, "identities")
    assert identities.groupby("identity_id")["image_id"].agg(frozenset).nunique() == 6
    for _, members in identities.groupby("identity_id")["image_id"]:
        assert len({person[name] for name in members}) == 1
    with (root / "disagreements.csv").open(newline="") as stream:
        listed = list(csv.DictReader(stream))
    wrong = [row for row in listed if row["what"] == "two people, near"]
    assert wrong
    assert all(swapped in (row["image_a"], row["image_b"]) for row in wrong)
    done = ffhqref("validate")
    assert done.returncode == 0, done.stdout
    done = ffhqref("audit", "audit.worst=1")
    assert done.returncode == 0, done.stderr
    assert "audit: 6 identities, " in done.stdout + done.stderr
    assert "of which the network sees two sides (disagreements, not merges)" in done.stdout + done.stderr
    assert "suspicious merges" not in done.stdout + done.stderr


def test_identity_truth_needs_people(ffhqref, few_faces):
    done = ffhqref("build", *SMALL, f"dataset.path={few_faces}", "build.identity=truth")
    assert done.returncode != 0
    assert "build.identity=truth: the data set tells nobody: give dataset.truth=FILE" in done.stderr


def test_images_that_are_not_aligned_stop_the_build_unless_told(ffhqref, tmp_path):
    (tmp_path / "walls").mkdir()
    for number in range(4):
        Image.new("RGB", (96, 96 if number else 120), (90, 40 * number, 90)).save(tmp_path / "walls" / f"{number}.png")
    wrong = ("build", "dataset=folder", f"dataset.path={tmp_path / 'walls'}", "dataset.test=0", "dataset.val=0")
    done = ffhqref(*wrong)
    assert done.returncode == 2
    assert "4 of 4 images looked at" in done.stderr
    assert "first 0.png: 96x120 pixels; set dataset.aligned=false" in done.stderr
    assert not (ffhqref.folder / "workspace" / "tables" / "images.parquet").exists()
    assert "looked at" not in ffhqref(*wrong, "dataset.aligned=true").stderr
