"""``ffhqref validate``: a sound set passes, each planted fault is found, and what could not be checked is said."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pandas as pd

from ffhqref.store import tables

from .test_cli import one_line


def change(root: Path, table: str, edit) -> None:
    """Rewrite a table under its own provenance."""
    frame = tables.read_table(root, table)
    origin = {key: value for key, value in tables.read_metadata(root, table).items() if key != "content"}
    tables.write_table(root, table, edit(frame), origin)


def test_a_sound_workspace_passes(built, ffhqref):
    done = ffhqref("validate", f"root={built}")
    assert done.returncode == 0, done.stderr
    assert "0 errors, 0 warnings" in done.stdout
    assert "checked: lists, files, duplicates, near images across splits, distances\n" in done.stdout


def test_planted_faults_are_found(workspace, ffhqref, tmp_path):
    references = tables.read_table(workspace, "references")
    identities = tables.read_table(workspace, "identities").set_index("image_id")
    images = tables.read_table(workspace, "images").set_index("image_id")
    test = references[references["split"] == "test"]["target_id"].unique()
    train = identities.index[identities["split"] == "train"]

    def wrong_distance(frame):
        frame.loc[frame["target_id"] == test[0], "distance"] += 0.001
        return frame

    def one_file_in_two_splits(frame):
        frame.loc[frame["image_id"] == train[0], "sha256"] = images.loc[test[0], "sha256"]
        return frame

    change(workspace, "references", wrong_distance)
    change(workspace, "images", one_file_in_two_splits)
    done = ffhqref("validate", f"root={workspace}", f"validate.csv={tmp_path}/found.csv", "validate.first=1")
    assert done.returncode == 1, done.stderr
    with (tmp_path / "found.csv").open() as stream:
        found = list(csv.DictReader(stream))
    assert {row["check"] for row in found} == {"distance", "duplicate_file"}
    wrong = [row for row in found if row["check"] == "distance"]
    assert len(wrong) == (references["target_id"] == test[0]).sum() > 1
    assert {row["image_id"] for row in wrong} == {test[0]}
    assert done.stdout.count("recomputed") == 1  # the first of each kind, with the number of all
    assert f"{len(found)} errors" in done.stdout


def test_a_lost_file_is_found(workspace, ffhqref, few_faces, tmp_path):
    faces = tmp_path / "faces"
    shutil.copytree(few_faces, faces)
    path = tables.table_path(workspace, "images")
    origin = tables.read_metadata(workspace, "images")
    origin["dataset_root"] = str(faces)
    tables.write_table(workspace, "images", tables.read_table(workspace, "images"), origin)
    assert path.is_file()
    target = tables.read_table(workspace, "references")["target_id"].iloc[0]
    (faces / f"{target}.jpg").unlink()
    done = ffhqref("validate", f"root={workspace}")
    assert done.returncode == 1
    assert "missing_image" in done.stdout
    assert target in done.stdout


def test_a_downloaded_release(built, ffhqref, few_faces, tmp_path):
    """Alone (its images are the sample's), then with images, then with embeddings, then with faults."""
    release = tmp_path / "FFHQ-Ref"
    shutil.copytree(built / "FFHQ-Ref", release)
    alone = ffhqref("validate", f"release={release}")
    assert alone.returncode == 0, alone.stderr
    assert "checked: lists, files; not checked: duplicates, near images across splits, distances" in alone.stdout
    assert not (ffhqref.folder / "workspace").exists()
    files = ffhqref("validate", f"release={release}", "dataset=folder", f"dataset.path={few_faces}")
    assert files.returncode == 0, files.stderr
    assert "checked: lists, files; not" in files.stdout
    measured = ffhqref("validate", f"release={release}", f"root={built}", "dataset=folder", f"dataset.path={few_faces}")
    assert measured.returncode == 0, measured.stderr
    assert "distances\n" in measured.stdout

    mapping = release / "reference_mapping" / "test_references.csv"
    target = pd.read_csv(mapping, dtype=str)["gt_image"].iloc[0]
    mapping.write_text(mapping.read_text().replace("['", f"['{target}', '99999.jpg', '", 1))
    broken = ffhqref("validate", f"release={release}", "dataset=folder", f"dataset.path={few_faces}")
    assert broken.returncode == 1
    for word in ("self_reference", "missing_image", "99999"):
        assert word in broken.stdout


def test_ids_that_ffhq_shares_with_the_sample_are_not_taken_for_it(ffhqref, tmp_path):
    """The default data set and its ids 00000... say nothing about a release of FFHQ."""
    (tmp_path / "test_references.csv").write_text(
        "gt_image,lq_image,ref_image\n00001.png,00001.png,\"['00002.png', '69999.png']\"\n"
    )
    done = ffhqref("validate", f"release={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "not checked: files" in done.stdout


def test_mistakes(ffhqref, tmp_path):
    assert "no workspace" in one_line(ffhqref("validate", f"root={tmp_path}/none"))
    assert not (tmp_path / "none").exists()
    assert "no reference mapping" in one_line(ffhqref("validate", f"release={tmp_path}"))
    assert "first=x" in one_line(ffhqref("validate", f"release={tmp_path}", "validate.first=x"))
