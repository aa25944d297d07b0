"""The leak guard: nobody whom a benchmark tests is trained on."""

from __future__ import annotations

import numpy as np
import pytest

from ffhqref.core.errors import DatasetError
from ffhqref.reference_sets.vectors import Embeddings
from ffhqref.synthesis.leaks import Leak, leaks_by_face, leaks_by_name, read_test_list, refuse


def test_tested_pictures_and_other_pictures_of_tested_people_are_found():
    people = {"00001": 1, "00002": 1, "00003": 2, "00009": 1}
    found = leaks_by_name(["00002", "00003", "00004", "00009"], people, {"00001", "00009"}, "the list")
    assert found == [
        Leak("00002", "is the person of test picture 00001 of the list"),
        Leak("00009", "is a test picture of the list"),
    ]
    assert leaks_by_name(["00003", "00004"], people, {"00001"}, "the list") == []
    assert leaks_by_name(["00004"], people, {"00005"}, "x") == [], "two unknown people are not one"


def test_faces_of_another_benchmark_are_found_as_brute_force_finds_them():
    draw = np.random.default_rng(4)
    vectors = draw.normal(size=(60, 16))
    vectors[40:] = vectors[:20] + draw.normal(size=(20, 16)) * np.linspace(0, 2, 20)[:, None]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    names = [f"{n:05d}" for n in range(40)]
    mine, tested = (
        Embeddings.checked(names, vectors[:40]),
        Embeddings.checked([f"t{n:02d}" for n in range(20)], vectors[40:]),
    )
    found = leaks_by_face(names, mine, tested, 0.3, "other")
    expected = {
        name for k, name in enumerate(names) if min(1 - float(vectors[k] @ other) for other in vectors[40:]) < 0.3
    }
    assert 3 < len(expected) < 20
    assert {leak.image_id for leak in found} == expected
    reasons = {leak.image_id: leak.reason for leak in found}
    nearest = int(np.argmax(vectors[40:] @ vectors[0]))
    assert f"test picture t{nearest:02d} of other (distance " in reasons["00000"]


def test_published_lists_are_read_as_they_are(tmp_path):
    (tmp_path / "test_image.txt").write_text("00012.png\n00345.png\n\n")
    (tmp_path / "test_references.csv").write_text(
        "gt_image,lq_image,ref_image\n00012.png,00012.png,\"['00013.png', '00014.png']\"\n00345.png,x,\"[]\"\n"
    )
    for name in ("test_image.txt", "test_references.csv"):
        assert read_test_list(tmp_path / name) == {"00012", "00345"}
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(DatasetError, match="is empty"):
        read_test_list(tmp_path / "empty.txt")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_test_list(tmp_path / "none.txt")


def test_leaks_are_refused_with_number_first_and_remedy():
    refuse([])
    with pytest.raises(DatasetError, match=r"leak: 2 pictures .* first a: is tested; .*synthesis.leaks=leave_out"):
        refuse([Leak("a", "is tested"), Leak("b", "is tested"), Leak("a", "looks like b")])
