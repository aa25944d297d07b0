"""The contamination guard: nobody whom a benchmark tests is trained on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ffhqref.core.errors import ConfigError, DatasetError
from ffhqref.reference_sets.contamination import (
    OWN_SPLIT,
    BenchmarkPeople,
    Candidates,
    Contamination,
    benchmark_folders,
    benchmark_people,
    describe,
    find_contamination,
    read_test_list,
    refuse,
)
from ffhqref.reference_sets.vectors import Embeddings
from ffhqref.store.workspace import Workspace

NO_FACES = Embeddings.checked([], np.zeros((0, 2)))


def candidates(names, *people, embeddings=NO_FACES, known=(), prefix=""):
    return Candidates(tuple(sorted(names)), people, embeddings, frozenset({*names, *known}), prefix)


def angles(**degrees):
    """Unit vectors in the plane: the distance of two is 1 - cos of the angle between them."""
    turned = np.radians(list(degrees.values()))
    return Embeddings.checked(list(degrees), np.stack([np.cos(turned), np.sin(turned)], axis=1))


def reasons(found):
    return {item.image_id: item.reason for item in found}


def test_tested_images_and_other_images_of_tested_people_are_found():
    people = {"00001": 1, "00002": 1, "00003": 2, "00009": 1}
    tested = BenchmarkPeople("the list", frozenset({"00001", "00009"}))
    found = find_contamination(candidates(["00002", "00003", "00004", "00009"], people), [tested], 0.3)
    assert found == [
        Contamination("00002", "shows the person of test image 00001 of the list"),
        Contamination("00009", "is a test image of the list"),
    ]
    assert find_contamination(candidates(["00003", "00004"], people), [tested], 0.3) == []
    alone = BenchmarkPeople("x", frozenset({"00005"}))
    assert find_contamination(candidates(["00004"], people), [alone], 0.3) == [], "two unknown people are not one"


def test_true_identities_find_what_built_ones_miss():
    """The builder put one person into two identities, one of which is tested."""
    built, true = {"a": 1, "b": 2, "c": 3}, {"a": "kim", "b": "kim", "c": "lee"}
    tested = BenchmarkPeople("the split", frozenset({"a"}))
    assert find_contamination(candidates(["b", "c"], built), [tested], 0.3) == []
    found = find_contamination(candidates(["b", "c"], built, true), [tested], 0.3)
    assert reasons(found) == {"b": "shows the person of test image a of the split"}


def test_people_are_followed_through_every_way_of_telling_them_apart():
    """b looks like a tested face; c is b's built identity, d is c's true one."""
    built, true = {"b": 1, "c": 1, "d": 2, "e": 3}, {"c": "kim", "d": "kim", "e": "lee"}
    known = angles(b=10, c=90, d=170, e=250)
    tested = BenchmarkPeople("other", faces=angles(t=12))
    found = reasons(find_contamination(candidates("bcde", built, true, embeddings=known), [tested], 0.01))
    assert sorted(found) == ["b", "c", "d"]
    assert found["d"] == (
        "shows the person of c, which shows the person of b, which looks like test image t of other (distance 0.001)"
    )


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
    found = find_contamination(candidates(names, embeddings=mine), [BenchmarkPeople("other", faces=tested)], 0.3)
    expected = {
        name for k, name in enumerate(names) if min(1 - float(vectors[k] @ other) for other in vectors[40:]) < 0.3
    }
    assert 3 < len(expected) < 20
    assert {item.image_id for item in found} == expected
    nearest = int(np.argmax(vectors[40:] @ vectors[0]))
    assert f"test image t{nearest:02d} of other (distance " in reasons(found)["00000"]


def test_published_lists_are_read_as_they_are(tmp_path):
    (tmp_path / "test_image.txt").write_text("00012.png\n00345.png\n\n")
    (tmp_path / "test_references.csv").write_text(
        "gt_image,lq_image,ref_image\n00012.png,00012.png,\"['00013.png', '00014.png']\"\n00345.png,x,\"[]\"\n"
    )
    for name in ("test_image.txt", "test_references.csv"):
        assert read_test_list(tmp_path / name) == ["00012.png", "00345.png"]
    (tmp_path / "lq.csv").write_text("lq_image,gt_image\nlq_1.png,00012.png\nlq_2.png,00345.png\n")
    assert read_test_list(tmp_path / "lq.csv") == ["00012.png", "00345.png"], "the targets, not their other names"
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(DatasetError, match="is empty"):
        read_test_list(tmp_path / "empty.txt")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_test_list(tmp_path / "none.txt")


def test_contamination_is_refused_with_number_first_and_remedy():
    refuse([])
    with pytest.raises(
        DatasetError, match=r"contamination: 2 images .* first a: is tested; .*contamination.policy=leave_out"
    ):
        refuse([Contamination("a", "is tested"), Contamination("b", "is tested")])
    assert describe([Contamination(name, "is tested") for name in "abc"], most=2) == [
        "left out: a is tested", "left out: b is tested", "left out: 1 more images of tested people",
    ]  # fmt: skip


# Workspaces


def workspace_of(root, faces, test=(), embedder="net"):
    """A workspace of tables alone: an identity for each image."""
    workspace = Workspace(root)
    names = list(faces.image_ids)
    split = ["test" if name in test else "train" for name in names]
    identities = pd.DataFrame({"image_id": names, "identity_id": range(len(names)), "size": 1, "split": split})
    vectors = pd.DataFrame({"image_id": names, "embedder": embedder, "vector": list(faces.vectors)})
    files = pd.DataFrame({"image_id": names, "path": names, "width": 1, "height": 1, "sha256": "", "error": None})
    workspace.write("images", files, dataset_root=str(root))
    workspace.write("embeddings", vectors, inputs=("images",))
    workspace.write("identities", identities, inputs=("embeddings",), config={"max_distance": 0.01})
    return workspace


def no_embedding(root, files):
    raise AssertionError("nothing needs a network here")


def test_the_own_split_and_another_workspace_are_compared(tmp_path):
    own = workspace_of(tmp_path / "own", angles(a=0, b=40, c=80, t=120), test={"t"})
    other = workspace_of(tmp_path / "other", angles(x=41, y=200), test={"x"})
    images = candidates("abc", embeddings=angles(a=0, b=40, c=80), known="t")
    tested, remarks = benchmark_people(own, [other.root], [images], no_embedding)
    assert [(item.where, sorted(item.image_ids)) for item in tested] == [(OWN_SPLIT, ["t"]), (str(other.root), [])]
    assert remarks == []
    assert reasons(find_contamination(images, tested, 0.01)) == {
        "b": f"looks like test image x of {other.root} (distance 0.000)"
    }
    foreign = workspace_of(tmp_path / "foreign", angles(x=41), test={"x"}, embedder="another")
    with pytest.raises(ConfigError, match=r"embedded with another, this workspace with net: .* cannot be compared"):
        benchmark_people(own, [foreign.root], [images], no_embedding)
    untested = workspace_of(tmp_path / "untested", angles(x=41))
    with pytest.raises(DatasetError, match="has no test split"):
        benchmark_people(own, [untested.root], [images], no_embedding)


def test_a_folder_of_images_is_compared_by_face(tmp_path):
    """As FaceMe's LFW-Test-Ref: no list, no workspace."""
    own = workspace_of(tmp_path / "own", angles(a=0, b=40))
    folder = tmp_path / "LFW-Test-Ref"
    (folder / "kim").mkdir(parents=True)
    for name in ("kim/1.png", "2.png"):
        (folder / name).write_bytes(b"")

    def embed(root, files):
        assert (root, dict(files)) == (folder, {"kim/1.png": "kim/1.png", "2.png": "2.png"})
        return Embeddings.checked(["kim/1.png"], angles(x=1).vectors)

    images = candidates("ab", embeddings=angles(a=0, b=40))
    tested, _ = benchmark_people(own, [folder], [images], embed)
    assert reasons(find_contamination(images, tested, 0.01)) == {
        "a": f"looks like test image kim/1.png of {folder} (distance 0.000)"
    }
    with pytest.raises(DatasetError, match=r"no image in .* can be read"):
        benchmark_people(own, [folder], [images], lambda root, files: NO_FACES)


def test_names_of_a_list_are_matched_whole_and_strangers_counted(tmp_path):
    own = workspace_of(tmp_path / "own", angles(a=0))
    listed = tmp_path / "list.txt"
    listed.write_text("kim.2010.png\nfaces/lee.jpg\nnobody.png\n")
    images = candidates(["kim", "kim.2010"])
    more = candidates(["faces-lee"], prefix="faces-")
    tested, remarks = benchmark_people(own, [listed], [images, more], no_embedding)
    assert tested[-1].image_ids == {"kim.2010", "faces-lee"}
    assert remarks == [f"{listed}: 1 of 3 names match no image, first 'nobody.png'"]
    listed.write_text("celeb.png\n")
    with pytest.raises(DatasetError, match=r"none of the 1 names in .*list.txt is an image of the data set.*'celeb"):
        benchmark_people(own, [listed], [images, more], no_embedding)


def test_folders_of_benchmarks_are_known_from_their_options(tmp_path):
    benchmarks = {
        "severe": {"degradation": "severe", "split": "test"},
        "refldm_severe": {"lq_folder": "/lq", "split": "test"},
        "lfw_test_ref": {"lq_folder": "/lfw", "reference_folder": "/lfw-ref", "reference_list": None},
        "mine": {"lq_folder": "/mine", "reference_list": "/refs/list.csv"},
        "wider_test": {"lq_folder": "/wider"},
        "webphoto_test": {"lq_folder": None},
    }
    assert [str(folder) for folder in benchmark_folders(benchmarks)] == ["/lfw-ref", "/refs", "/wider"]
