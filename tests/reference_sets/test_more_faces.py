"""The list of more faces to train on: an image without a name is not another person's photograph."""

from __future__ import annotations

import pytest

from ffhqref.core.errors import ConfigError
from ffhqref.reference_sets.training_images import people_of_csv


@pytest.mark.parametrize("empty", ["", " "])
def test_images_of_nobody_are_not_one_person(tmp_path, empty):
    (tmp_path / "people.csv").write_text(f"file,person\na.png,ann\nb.png,{empty}\nc.png,{empty}\n")
    with pytest.raises(ConfigError, match=r"people\.csv, line 3: the cell 'person' of 'b.png' is empty"):
        people_of_csv(tmp_path, "people.csv")


def test_people_are_read(tmp_path):
    (tmp_path / "people.csv").write_text("file,person\na.png,ann\nb.png,bob\n")
    assert people_of_csv(tmp_path, "people.csv", ["bob"]) == [("a.png", "ann")]
