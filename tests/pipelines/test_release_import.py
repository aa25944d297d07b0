"""``release=FOLDER``: a published set is imported as tables, and its differences from ours are told."""

from __future__ import annotations

import ast
import csv
import shutil

import numpy as np
import pandas as pd
import pytest

from ffhqref.store import tables

from .conftest import build_arguments
from .test_cli import one_line


@pytest.fixture
def arguments(few_faces, sample_folder):
    return build_arguments(few_faces, sample_folder)


def test_the_import_of_our_own_export_gives_the_tables_that_were_built(built, ffhqref, arguments, tmp_path):
    root = tmp_path / "w"
    shutil.copytree(built, root)
    (root / "tables" / "references.parquet").unlink()
    done = ffhqref("build", f"root={root}", f"release={built}/FFHQ-Ref", *arguments)
    assert done.returncode == 0, done.stderr
    pd.testing.assert_frame_equal(tables.read_table(root, "references"), tables.read_table(built, "references"))
    for name in ("test", "val", "train"):
        file = f"FFHQ-Ref/reference_mapping/{name}_references.csv"
        assert (root / file).read_bytes() == (built / file).read_bytes()
    assert (root / "release_differences.csv").read_text() == "kind,target_id,reference_id,ours,theirs\n"
    assert "release" in tables.read_metadata(root, "references")["config"]


def test_a_changed_release_is_taken_as_it_is_and_the_change_reported(built, ffhqref, arguments, tmp_path):
    """Two references swapped, one removed, one target removed: exactly these are reported, and nothing is mended."""
    root, release = tmp_path / "w", tmp_path / "theirs"
    shutil.copytree(built, root)
    release.mkdir()
    source = built / "FFHQ-Ref" / "reference_mapping" / "test_references.csv"
    rows = pd.read_csv(source, dtype=str)
    lists = [ast.literal_eval(cell) for cell in rows["ref_image"]]
    long = [i for i, names in enumerate(lists) if len(names) >= 3]
    swapped, shortened, gone = long[0], long[1], long[2]
    lists[swapped][0], lists[swapped][1] = lists[swapped][1], lists[swapped][0]
    lost = lists[shortened].pop()
    rows["ref_image"] = [repr(names) for names in lists]
    rows.drop(index=gone).to_csv(release / "test_references.csv", index=False)
    done = ffhqref("build", f"root={root}", f"release={release}", *arguments)
    assert done.returncode == 0, done.stderr

    references = tables.read_table(root, "references")
    listed = references.groupby("target_id")["reference_id"].agg(list)
    wanted = {row.gt_image[:-4]: [name[:-4] for name in ast.literal_eval(row.ref_image)]
              for row in rows.drop(index=gone).itertuples()}  # fmt: skip
    assert listed.to_dict() == wanted
    vectors = tables.read_table(root, "embeddings").set_index("image_id")["vector"]
    for row in references.itertuples():
        a, b = (vectors[name].astype(float) for name in (row.target_id, row.reference_id))
        assert row.distance == pytest.approx(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-6)
    with (root / "release_differences.csv").open() as stream:
        test = [
            row for row in csv.DictReader(stream) if "test" in (row["ours"], row["theirs"]) or row["kind"] != "target"
        ]
    name = rows["gt_image"].str[:-4]
    assert {(row["kind"], row["target_id"], row["reference_id"]) for row in test} == {
        ("order", name[swapped], ""), ("reference", name[shortened], lost[:-4]), ("target", name[gone], ""),
    }  # fmt: skip
    assert f"{len(rows) - 3} have the same references, 1 in another order, 1 others" in done.stderr

    images = tables.read_table(root, "images")["image_id"]
    identities = tables.read_table(root, "identities").set_index("image_id")
    assert set(identities.index) == set(images)
    assert set(identities.index[identities["split"] == "test"]) >= set(wanted)
    assert identities["split"].isna().any()  # what the release does not name has no split
    after = ffhqref("degrade", f"root={root}", "limit=2", "benchmark=[severe]")
    assert after.returncode == 0, after.stderr


def test_an_unreadable_picture_costs_its_distances_and_nothing_else(built, ffhqref, sample_folder, few_faces, tmp_path):
    root, faces = tmp_path / "w", tmp_path / "faces"
    shutil.copytree(built, root)
    shutil.copytree(few_faces, faces)
    before = tables.read_table(built, "references")
    broken = before.loc[before["split"] == "train", "reference_id"].iloc[0]
    (faces / f"{broken}.jpg").write_bytes(b"no image")
    done = ffhqref("build", f"root={root}", f"release={built}/FFHQ-Ref", *build_arguments(faces, sample_folder))
    assert done.returncode == 1, done.stderr
    references = tables.read_table(root, "references")
    hit = (references[["target_id", "reference_id"]] == broken).any(axis=1)
    assert references["distance"].isna().equals(hit)
    assert len(references) == len(before)


def test_mistakes_are_found_before_any_work(built, ffhqref, arguments, tmp_path):
    (tmp_path / "test_references.csv").write_text(
        "gt_image,lq_image,ref_image\n99998.png,99998.png,\"['99999.png']\"\n"
    )
    root = f"root={tmp_path}/w"
    assert "line 2: unknown image '99998.png'" in one_line(ffhqref("run", root, f"release={tmp_path}", *arguments))
    (tmp_path / "verdicts.csv").write_text("target_id,reference_id\n")
    both = ("build", root, f"release={built}/FFHQ-Ref", f"exclusions={tmp_path}/verdicts.csv", *arguments)
    assert "leave one of them out" in one_line(ffhqref(*both))
    assert not (tmp_path / "w" / "tables" / "images.parquet").exists()
