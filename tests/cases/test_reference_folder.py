"""Which reference belongs to which low-quality image: every layout, what is in doubt, and every complaint."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffhqref.cases.benchmark import Benchmark
from ffhqref.cases.cases import make_blind_cases
from ffhqref.cases.lq import given_references
from ffhqref.cases.reference_folder import by_number
from ffhqref.core.errors import ConfigError, DatasetError


@pytest.fixture
def lay(tmp_path):
    """Write empty files into a new folder: matching opens none of them."""
    number = itertools.count()

    def make(*references, lq=("a.png", "b_1.jpg", "c.png")):
        root = tmp_path / f"world{next(number)}"
        for name in [*(f"lq/{name}" for name in lq), *(f"ref/{name}" for name in references)]:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
        return root

    return make


def match(root, names=("a", "b_1", "c"), **options):
    wanted = {"folder": root / "ref", "listing": None, **options}
    return given_references("x", names, root / "lq", **wanted)


LAYOUTS = {
    "folders": ["a/10.png", "a/9.jpg", "a/deep/1.png", "b_1/x.webp", "other/z.png"],
    "names": ["set10/a.png", "set9/a.jpg", "deep/er/a.png", "set9/b_1.webp", "set9/z.png"],
    "prefixes": ["a_10.png", "a_9.jpg", "a-best.png", "b_1 (2).webp", "zz_1.png"],
    "buckets": [
        "target_pose_1/target_pose_1_0/a.png", "target_pose_0/target_pose_0_1/a.png",
        "target_pose_0/target_pose_0_2/a.jpg", "target_pose_0/target_pose_0_2/b_1.png",
        "target_pose_0/target_pose_0_2/z.png",
    ],
}  # fmt: skip
EXPECTED = {
    "folders": {"a": ("a/9.jpg", "a/10.png", "a/deep/1.png"), "b_1": ("b_1/x.webp",), "c": ()},
    "names": {"a": ("deep/er/a.png", "set9/a.jpg", "set10/a.png"), "b_1": ("set9/b_1.webp",), "c": ()},
    "prefixes": {"a": ("a-best.png", "a_9.jpg", "a_10.png"), "b_1": ("b_1 (2).webp",), "c": ()},
    "buckets": {
        "a": tuple(sorted(path for path in LAYOUTS["buckets"] if "/a." in path)),
        "b_1": ("target_pose_0/target_pose_0_2/b_1.png",), "c": (),
    },
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("unpacked", ["", "LFW-Test-Ref/"])
def test_every_layout_is_found_and_told(lay, layout, unpacked):
    found = match(lay(*(unpacked + path for path in LAYOUTS[layout])))
    assert found.layout.startswith(f"{layout} (")
    expected = {name: tuple(unpacked + path for path in paths) for name, paths in EXPECTED[layout].items()}
    assert dict(found.paths) == expected
    assert found.without == ["c"]
    (remark,) = found.remarks
    assert remark.startswith("1 of 5 reference images belong to no low-quality image, first ")


@settings(max_examples=60, deadline=None)
@given(
    planted=st.dictionaries(
        st.integers(0, 400).map("p{:03d}".format), st.integers(0, 4), min_size=1, max_size=8
    ).filter(lambda planted: any(planted.values())),
    layout=st.sampled_from(sorted(LAYOUTS)),
    start=st.integers(0, 1000),
)
def test_what_was_planted_is_found(tmp_path_factory, planted, layout, start):
    root = tmp_path_factory.mktemp("planted")
    place = {
        "folders": "{stem}/{k}.png", "names": "kind{k}/{stem}.png", "prefixes": "{stem}_{k}.png",
        "buckets": "target_pose_1/target_pose_1_{digit}/{stem}.png",
    }[layout]  # fmt: skip
    truth = {
        stem: tuple(place.format(stem=stem, k=start + k, digit=k) for k in range(count))
        for stem, count in planted.items()
    }
    (root / "lq").mkdir()
    for path in (path for paths in truth.values() for path in paths):
        (root / "ref" / path).parent.mkdir(parents=True, exist_ok=True)
        (root / "ref" / path).touch()
    found = match(root, planted)
    assert dict(found.paths) == truth
    assert found.layout.split()[0] == layout
    assert not found.remarks


def test_two_layouts_that_fit_differently_are_asked_about(lay):
    root = lay("1/0.png", "1/2.png", "0/1.png", lq=("0.png", "1.png", "2.png"))
    with pytest.raises(DatasetError, match=r"two layouts fit .* at 0/1\.png; say which with benchmark\.x\.reference_l"):
        match(root, ("0", "1", "2"))
    folders = match(root, ("0", "1", "2"), layout="folders")
    assert dict(folders.paths) == {"0": ("0/1.png",), "1": ("1/0.png", "1/2.png"), "2": ()}
    names = match(root, ("0", "1", "2"), layout="names")
    assert dict(names.paths) == {"0": ("1/0.png",), "1": ("0/1.png",), "2": ("1/2.png",)}


def test_folders_win_where_they_explain_more_or_the_same(lay):
    assert match(lay("a/a_1.png", "a/a_2.png", "b_1/b_1.png")).layout.startswith("folders")
    assert match(lay("a/c.png", "b_1/x.png")).layout.startswith("folders")
    with pytest.raises(DatasetError, match=r"two layouts fit .* at c_1\.png"):
        match(lay("a/x.png", "c_1.png"))


def test_names_that_begin_alike_are_not_guessed_about(lay):
    root = lay("a_1.png", "a_2.png", lq=("a.png", "a_1.png"))
    with pytest.raises(DatasetError, match=r"a_1\.png .* could belong to .* 'a' and 'a_1' \(layout prefixes"):
        match(root, ("a", "a_1"))
    whole = lay("set/a.png", "set/a_1.png", "set/b.png", lq=("a.png", "a_1.png"))
    assert dict(match(whole, ("a", "a_1")).paths) == {"a": ("set/a.png",), "a_1": ("set/a_1.png",)}
    with pytest.raises(DatasetError, match=r"a/a_1/x\.png .* could belong to"):
        match(lay("a/a_1/x.png"), ("a", "a_1"))


def test_no_match_says_what_both_sides_are_called(lay):
    root = lay("Tony_Blair/1.png", "Tony_Blair/2.png", "Ann/3.png", "Bob/4.png")
    said = (
        r"none of the 4 reference images .*/ref belongs to one of the 3 low-quality images .*/lq; here they are "
        r"called 'Ann/3\.png', 'Bob/4\.png', 'Tony_Blair/1\.png', …, there 'a', 'b_1', 'c': rename them, or give "
        r"benchmark\.x\.reference_list=CSV"
    )
    with pytest.raises(DatasetError, match=said) as caught:
        match(root)
    assert "\n" not in str(caught.value)
    with pytest.raises(DatasetError, match="in the layout buckets"):
        match(lay("a/1.png"), layout="buckets")


def test_folders_that_are_not_there_empty_or_in_each_other(lay):
    root = lay("a/1.png")
    with pytest.raises(DatasetError, match=r"benchmark 'x': no such folder: .*nowhere; set benchmark\.x\.reference_f"):
        match(root, folder=root / "nowhere")
    (root / "empty").mkdir()
    with pytest.raises(DatasetError, match=r"no image .* in .*empty"):
        match(root, folder=root / "empty")
    for folder in (root, root / "lq", root / "lq" / "deeper"):
        with pytest.raises(DatasetError, match="are one, or one lies in the other"):
            match(root, folder=folder)


def test_a_list_of_pairs_keeps_its_order(lay):
    root = lay("s/1.png", "s/2.png", "s/3.png")
    file = root / "list.csv"
    file.write_text("note,lq,reference\n,a.png,s/3.png\n,b_1,s/1.png\n,a,s/1.png\n,z.png,s/2.png\n,a,gone.png\n")
    found = match(root, listing=file)
    assert dict(found.paths) == {"a": ("s/3.png", "s/1.png", "gone.png"), "b_1": ("s/1.png",), "c": ()}
    assert found.layout == "list (lq, reference), list.csv"
    assert found.remarks == (
        "columns of list.csv that are not read: note",
        "1 lines of list.csv name no low-quality image, first 'z.png'",
    )
    file.rename(root / "ref" / "list.csv")
    beside = match(root, listing=root / "ref" / "list.csv", folder=None)
    assert (beside.root, beside.paths) == (root / "ref", found.paths)


def test_two_images_of_one_name_in_a_list_do_not_pool_their_references(lay):
    root = lay("Ann/1.png", "Bob/1.png")
    file = root / "list.csv"
    file.write_text("lq,reference\nAnn/a.png,Ann/1.png\nBob/a.png,Bob/1.png\n")
    with pytest.raises(DatasetError, match=r"line 3: 'Bob/a\.png' and an earlier line .* in two folders"):
        match(root, listing=file)
    file.write_text("lq,reference\nlq\\a.png,Ann\\1.png\nlq\\b_1.png,Bob\\1.png\n")  # written on Windows
    assert match(root, listing=file).paths == {"a": ("Ann/1.png",), "b_1": ("Bob/1.png",), "c": ()}


def test_a_list_of_people_lets_pictures_share_them(lay):
    root = lay("Ann/10.png", "Ann/9.png", "more/Bob/1.png", "Eve/1.png")
    file = root / "people.csv"
    file.write_text("file,person\na.png,Ann\nb_1.jpg,Ann\nc,more/Bob\nd,Carl\nz,Dan\n")
    found = match(root, ("a", "b_1", "c", "d"), listing=file)
    ann = ("Ann/9.png", "Ann/10.png")
    assert dict(found.paths) == {"a": ann, "b_1": ann, "c": ("more/Bob/1.png",), "d": ()}
    assert found.layout == "list (file, person), people.csv"
    assert found.remarks == (
        "1 lines of people.csv name no low-quality image, first 'z'",
        "1 of 3 people of people.csv have no reference, first 'Carl'",
        "1 of 4 reference images belong to nobody of people.csv, first Eve/1.png",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image,person\na,Ann\n", r"line 1: columns \['image', 'person'\], expected lq and reference, or file and per"),
        ("lq,reference,file,person\n", "expected lq and reference, or file and person"),
        ("lq,reference\n", "no line below its columns"),
        ("lq,reference\na,\n", "line 2: the cell 'reference' is empty"),
        ("lq,reference\n,Ann/1.png\n", "line 2: the cell 'lq' is empty"),
        ("lq,reference\na,../1.png\n", r"line 2: '\.\./1\.png' leaves the folder"),
        ("lq,reference\na,/etc/1.png\n", "line 2: '/etc/1.png' leaves the folder"),
        ("lq,reference\na,Ann/1.png\na.png,Ann/1.png\n", "line 3: the pair 'a.png', 'Ann/1.png' occurs twice"),
        ("lq,reference\nA.png,Ann/1.png\n", "none of its 1 lines names a .*; the list has 'A.png', the folder has 'a'"),
        ("lq,reference\na,x.png\nb_1,y.png\n", "none of the 2 references of .* is in .*/ref, first 'x.png'"),
        ("file,person\na,Ann\na,Bob\n", "line 3: 'a' has two people, 'Ann' and 'Bob'"),
        ("file,person\na,ann\n", "none of the 1 people .* the list has 'ann', the folder has 'Ann/1.png'"),
        ("file,person\na,ann\n\xff", "line 3: not UTF-8"),
    ],
)
def test_wrong_lists_are_refused_in_one_line(lay, text, said):
    root = lay("Ann/1.png")
    (root / "list.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DatasetError, match=said) as caught:
        match(root, listing=root / "list.csv")
    assert "\n" not in str(caught.value)
    with pytest.raises(DatasetError, match=r"no such file: .*other\.csv"):
        match(root, listing=root / "other.csv")
    with pytest.raises(DatasetError, match=r"no such folder: .*nowhere"):
        match(root, listing=root / "list.csv", folder=root / "nowhere")


def test_numbers_sort_by_value():
    assert sorted(["10/a2", "9/a10", "9/a9", "b", "9/a09"], key=by_number) == ["9/a09", "9/a9", "9/a10", "10/a2", "b"]


def test_cases_that_share_a_reference_are_one_person():
    lq = {name: f"lq/{name}.png" for name in "abcdef"}
    shared = {"a": ["r/1", "r/2"], "c": ["r/2", "r/3"], "e": ["r/3"], "b": ["r/9"], "d": ["r/8"], "f": ["r/8"]}
    cases = make_blind_cases("x", lq, shared, 1).set_index("case_id")
    person = cases["identity_id"]
    assert person["a"] == person["c"] == person["e"] != person["d"] == person["f"]
    assert person.isna().tolist() == [False, True, False, False, False, False]
    assert cases["reference_paths"].to_dict() == {k: [f"workspace:{paths[0]}"] for k, paths in sorted(shared.items())}
    assert make_blind_cases("x", lq)["identity_id"].isna().all()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"reference_folder": None}, r"'x' needs the references .* benchmark\.x\.reference_folder=FOLDER"),
        ({"reference_folder": "r", "split": "test"}, "give one of benchmark.x.split and"),
        ({"reference_folder": "r", "reference_counts": [1, 4]}, "only drawn for a split"),
        ({"reference_folder": "r", "reference_layout": "folder"}, "unknown layout. Did you mean 'folders'"),
        ({"reference_list": "r", "reference_layout": "folders"}, "leave out one of the two"),
        ({"reference_folder": "r", "reference_source": "fake"}, "expected unknown, real, or synthetic:NAME"),
    ],
)
def test_wrong_options_are_refused(tmp_path, wrong, said):
    with pytest.raises(ConfigError, match=said):
        Benchmark.of("x", {"lq_folder": str(tmp_path), **wrong})
