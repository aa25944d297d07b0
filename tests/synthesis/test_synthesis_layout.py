"""The published folder names, written and read back, under the published preparation's own rule."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ffhqref.core.errors import ConfigError, DatasetError
from ffhqref.core.images import save_png
from ffhqref.synthesis.layout import read_layout, reference_path, remove_rejected


@given(st.integers(0, 69999), st.integers(0, 9), st.integers(0, 9))
def test_names_survive_the_last_three_characters_rule(number, i, j):
    """The published preparation files a reference's features under the last three characters of its folder."""
    path = reference_path(f"{number:05d}", i, j)
    folder, name = path.rsplit("/", 1)
    assert folder[-3:] == f"{i}_{j}"
    assert name == f"{number:05d}.png"
    assert path.split("/")[0] == f"target_pose_{i}"


@pytest.mark.parametrize("bucket", [(10, 0), (0, 10), (-1, 0)])
def test_buckets_of_two_digits_are_refused(bucket):
    with pytest.raises(ConfigError, match="two single digits"):
        reference_path("00000", *bucket)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../a"])
def test_names_that_leave_the_folder_are_refused(name):
    with pytest.raises(ConfigError, match="cannot be the name of a file"):
        reference_path(name, 0, 0)


def test_a_folder_is_read_back_and_what_is_not_of_the_layout_is_left_alone(tmp_path):
    grey = np.full((8, 8, 3), 9, np.uint8)
    wanted = [("00001", 0, 0), ("00001", 2, 1), ("00002", 0, 0)]
    for case in wanted:
        save_png(tmp_path / reference_path(*case), grey)
    for foreign in (
        "target_pose_0/target_pose_1_0/00001.png",
        "other/00001.png",
        "target_pose_0/target_pose_0_0/n.txt",
    ):
        save_png(tmp_path / foreign, grey)
    assert sorted(case[:3] for case in read_layout(tmp_path)) == sorted(wanted)
    assert all((tmp_path / case[3]).is_file() for case in read_layout(tmp_path))
    removed = remove_rejected(tmp_path, {"00001"}, {reference_path("00001", 2, 1)})
    assert removed == [reference_path("00001", 0, 0)]
    assert (tmp_path / "target_pose_0/target_pose_1_0/00001.png").is_file()
    assert sorted(case[:3] for case in read_layout(tmp_path)) == [("00001", 2, 1), ("00002", 0, 0)]
    with pytest.raises(DatasetError, match="no such folder"):
        list(read_layout(tmp_path / "none"))
