"""Export and import of a release, comparison, and the checks on a reference set."""

import hashlib

import numpy as np
import pandas as pd
import pytest

from ffhqref.core.errors import DatasetError
from ffhqref.reference_sets.build import build_reference_set
from ffhqref.reference_sets.options import BuildConfig
from ffhqref.reference_sets.release import (
    compare_references,
    make_release,
    read_release,
    release_tables,
    write_release,
)
from ffhqref.reference_sets.simulate import simulate_embeddings
from ffhqref.reference_sets.validate import Evidence, Limits, validate_reference_set
from ffhqref.reference_sets.vectors import Embeddings
from ffhqref.store.tables import to_arrow

CONFIG = BuildConfig(test=12, val=12)


@pytest.fixture(scope="module")
def world():
    ids, vectors, _ = simulate_embeddings(900, 500, 120, dim=256, near_duplicates=0.05, seed=21)
    return Embeddings.checked(ids, vectors), build_reference_set(ids, vectors, CONFIG)


def test_export_and_import_give_the_tables_that_were_built(world, tmp_path):
    embeddings, built = world
    write_release(tmp_path, make_release(built.identities, built.references))
    identities, references = release_tables(read_release(tmp_path, set(embeddings.image_ids)), embeddings)
    pd.testing.assert_frame_equal(references, built.references)
    both = identities.merge(built.identities, on="image_id", suffixes=("", "_built"))
    assert len(both) == len(built.identities)
    assert (both["split"] == both["split_built"]).all()
    train = both[both["split"] == "train"]  # nothing is left out of the lists there
    assert (train["identity_id"].isna() == train["identity_id_built"].isna()).all()
    known = train.dropna(subset="identity_id")
    assert (known.groupby("identity_id")["identity_id_built"].nunique() == 1).all()
    assert (known.groupby("identity_id_built")["identity_id"].nunique() == 1).all()
    assert compare_references(built.references, references).empty


def test_files_look_like_the_published_ones(world, tmp_path):
    _, built = world
    write_release(tmp_path, make_release(built.identities, built.references))
    train = pd.read_csv(tmp_path / "reference_mapping" / "train_references.csv")
    test = pd.read_csv(tmp_path / "reference_mapping" / "test_references.csv")
    assert list(train.columns) == ["gt_image", "ref_image"]
    assert list(test.columns) == ["gt_image", "lq_image", "ref_image"]
    assert (test["gt_image"] == test["lq_image"]).all()
    assert train["gt_image"].str.fullmatch(r"\d{5}\.png").all()
    lists = [
        (tmp_path / "id_based_ffhq_split" / f"{s}_image.txt").read_text().split() for s in ("train", "val", "test")
    ]
    assert sorted(name for names in lists for name in names) == [f"{name}.png" for name in built.identities["image_id"]]


def test_a_release_without_embeddings_is_a_valid_table(world, tmp_path):
    _, built = world
    write_release(tmp_path, make_release(built.identities, built.references))
    identities, references = release_tables(read_release(tmp_path))
    assert references["distance"].isna().all()
    to_arrow("references", references)
    to_arrow("identities", identities)


def test_a_test_mapping_alone_is_a_release(tmp_path):
    (tmp_path / "test_references.csv").write_text("gt_image,lq_image,ref_image\n1.jpg,1.png,\"['2.jpg', '3.jpg']\"\n")
    identities, references = release_tables(read_release(tmp_path))
    assert list(references["reference_id"]) == ["2", "3"]
    assert list(identities["image_id"]) == ["1", "2", "3"]
    assert (identities["identity_id"] == 0).all()
    assert (identities["split"] == "test").all()


def test_an_image_in_two_splits_and_a_folder_without_mapping_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="no reference mapping"):
        read_release(tmp_path)
    (tmp_path / "train_references.csv").write_text("gt_image,ref_image\n1.png,['2.png']\n")
    (tmp_path / "test_references.csv").write_text("gt_image,ref_image\n5.png,['3.png']\n4.png,['1.png']\n")
    with pytest.raises(DatasetError, match=r"image '1' is in train and in test \(test_references.csv, line 3\)"):
        release_tables(read_release(tmp_path))


def test_names_with_their_folder(world):
    _, built = world
    names = {name: f"{int(name) // 1000:05d}/{name}.jpg" for name in built.identities["image_id"]}
    release = make_release(built.identities, built.references, names)
    assert all(row.gt_image.endswith(".jpg") and "/" in row.gt_image for row in release.mappings["test"].rows)
    _, references = release_tables(release)
    assert compare_references(references, built.references).empty
    with pytest.raises(DatasetError, match="has no file name"):
        make_release(built.identities, built.references, {})


def test_every_difference_is_one_row(world):
    _, built = world
    ours = built.references
    theirs = ours.copy()
    test = theirs[theirs["split"] == "test"]
    many = test.groupby("target_id").filter(lambda rows: len(rows) >= 4)["target_id"].unique()
    lost, swapped, moved = many[:3]
    dropped = test[(test["target_id"] == lost) & (test["rank"] == 3)]["reference_id"].item()
    theirs = theirs[~((theirs["target_id"] == lost) & (theirs["rank"] == 3))]
    theirs.loc[(theirs["target_id"] == swapped) & (theirs["rank"] < 2), "rank"] = np.array([1, 0], np.int32)
    theirs.loc[theirs["target_id"] == moved, "split"] = "val"
    gone = theirs[theirs["split"] == "train"]["target_id"].iloc[0]
    theirs = theirs[theirs["target_id"] != gone]
    difference = compare_references(ours, theirs)
    assert sorted(difference["kind"]) == ["order", "reference", "target", "target"]
    row = difference[difference["kind"] == "reference"].iloc[0]
    assert (row["target_id"], row["reference_id"], row["ours"]) == (lost, dropped, "3")
    assert pd.isna(row["theirs"])
    assert set(difference.loc[difference["kind"] == "target", "target_id"]) == {moved, gone}
    assert difference.loc[difference["kind"] == "order", "target_id"].item() == swapped


def checks_of(built, identities=None, references=None, **more):
    limits = more.pop("limits", Limits())
    return validate_reference_set(
        built.identities if identities is None else identities,
        built.references if references is None else references,
        limits,
        Evidence(**more),
    )


def test_a_sound_set_has_no_findings(world):
    embeddings, built = world
    hashes = {name: hashlib.sha256(name.encode()).hexdigest() for name in embeddings.image_ids}
    found = checks_of(built, images=list(embeddings.image_ids), sha256=hashes, pairs=built.pairs, embeddings=embeddings)
    assert found.empty
    assert list(found.columns) == ["severity", "check", "split", "image_id", "other_id", "detail"]


def test_each_fault_is_found(world):
    embeddings, built = world
    references, identities = built.references, built.identities
    first = references.index[(references["split"] == "test") & (references["rank"] == 0)][0]
    target, reference = references.loc[first, ["target_id", "reference_id"]]
    train = identities.loc[identities["split"].eq("train") & identities["identity_id"].notna(), "image_id"].iloc[0]

    def with_row(**values):
        changed = references.copy()
        for column, value in values.items():
            changed.loc[first, column] = value
        return changed

    def only(frame, *checks):
        assert set(frame["check"]) == set(checks), frame
        return frame

    found = only(checks_of(built, images=set(embeddings.image_ids) - {reference}), "missing_image")
    assert list(found["image_id"]) == [reference]
    assert set(checks_of(built, references=with_row(reference_id=target))["check"]) == {"self_reference"}
    found = only(checks_of(built, references=with_row(reference_id=train)), "split_leak", "other_identity")
    assert set(found["other_id"]) == {train}
    only(checks_of(built, references=with_row(reference_id="nobody")), "unknown_image")
    only(checks_of(built, references=with_row(rank=77)), "rank")
    only(checks_of(built, references=with_row(distance=0.45)), "too_far")
    only(checks_of(built, references=with_row(distance=0.05)), "too_near")
    only(checks_of(built, references=with_row(distance=0.25), embeddings=embeddings), "distance")
    only(checks_of(built, limits=Limits(min_references=3)), "too_few")
    only(checks_of(built, limits=Limits(max_references=2)), "too_many")
    doubled = pd.concat([references, references.loc[[first]].assign(rank=references["target_id"].eq(target).sum())])
    only(checks_of(built, references=doubled, limits=Limits(max_references=None)), "doubled_reference")

    moved = identities.copy()
    moved.loc[moved["image_id"] == reference, "split"] = "train"
    found = only(
        checks_of(built, identities=moved, pairs=built.pairs), "identity_leak", "split_leak", "near_across_splits"
    )
    assert set(found.loc[found["check"] == "near_across_splits", "severity"]) == {"warning"}

    hashes = {name: name for name in embeddings.image_ids} | {reference: target}
    assert only(checks_of(built, sha256=hashes), "duplicate_file")["severity"].tolist() == ["error"]
    hashes = {name: name for name in embeddings.image_ids} | {train: target}
    assert "in test and train" in only(checks_of(built, sha256=hashes), "duplicate_file")["detail"].item().replace(
        "in train and test", "in test and train"
    )


def test_train_may_hold_near_duplicates(world):
    _, built = world
    train = built.references[built.references["split"] == "train"]
    assert (train["distance"] < 0.1).any()
    assert np.isfinite(train["distance"]).all()
    assert checks_of(built).empty


def lists(folder, rows, columns="gt_image,lq_image,ref_image"):
    folder.mkdir()
    (folder / "test_references.csv").write_text("\n".join([columns, *rows, ""]))
    return folder


PEOPLE = {"ann_001": "ann/001.png", "ann_002": "ann/002.png", "bob_001": "bob/001.png", "bob_002": "bob/002.png"}


def test_paths_of_people_come_back_as_their_images(tmp_path):
    """The build's own export of a set of one folder a person: file names repeat from person to person."""
    identities = pd.DataFrame({"image_id": list(PEOPLE), "split": "test"})
    references = pd.DataFrame(
        [("ann_001", "ann_002", 0, "test"), ("bob_002", "bob_001", 0, "test")],
        columns=["target_id", "reference_id", "rank", "split"],
    )
    write_release(tmp_path, make_release(identities, references, PEOPLE))
    back = release_tables(read_release(tmp_path, PEOPLE))[1]
    assert back[["target_id", "reference_id"]].values.tolist() == [["ann_001", "ann_002"], ["bob_002", "bob_001"]]
    unknown = read_release(tmp_path)  # without the data set: by path, as the stems mean several images
    assert set(release_tables(unknown)[0]["image_id"]) == {"ann/001", "ann/002", "bob/001", "bob/002"}
    assert unknown.matched(PEOPLE).targets == {"ann_001": "test", "bob_002": "test"}


def test_names_with_dots_and_other_endings_are_theirs(tmp_path):
    files = {"kim": "kim.png", "kim.2010": "kim.2010.png", "kim.2014": "kim.2014.png"}
    folder = lists(tmp_path / "r", ["kim.2010.jpg,kim.2010.jpg,\"['kim.2014', 'kim.png']\""])
    (row,) = release_tables(read_release(folder, files))[1].groupby("target_id")["reference_id"].agg(list).items()
    assert row == ("kim.2010", ["kim.2014", "kim"])


def test_lines_without_a_case_and_other_columns_are_told(tmp_path):
    rows = ["1.png,lq_0001.png,['2.png'],1", "3.png,3.png,[],0.5", "4.png,4.png,[],1"]
    release = read_release(lists(tmp_path / "r", rows, "gt_image,lq_image,ref_image,weight"), ["1", "2", "3", "4"])
    empty, lq, weight = release.remarks()
    doubled = read_release(lists(tmp_path / "d", ["1.png,1.png,\"['2.png', '3.png', '02.png']\""]), ["1", "2", "3"])
    assert "1 targets list one reference twice" in doubled.remarks()[0]
    assert "2 of 3 targets have no reference" in empty
    assert "first '3.png' in line 3" in empty
    assert "1 targets have a low-quality file of another name, first 'lq_0001.png'" in lq
    assert "weight is not used" in weight
    assert release.lq_names == {"1": "lq_0001.png"}
    assert release.targets == dict.fromkeys(["1", "3", "4"], "test")


@pytest.mark.parametrize("reference", ["1.png", "sub/1.jpg", "00001.png"])
def test_a_target_among_its_own_references_is_refused(tmp_path, reference):
    folder = lists(tmp_path / "r", [f"1.png,1.png,\"['2.png', '{reference}']\""])
    with pytest.raises(DatasetError, match=r"line 2: '1\.png' is among its own references"):
        read_release(folder, ["1", "2"])
