"""ReF-LDM's file formats: byte-equal round trips and hostile files."""

import ast
import io

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ffhqref.core.errors import DatasetError
from ffhqref.reference_sets.formats import (
    ImageList,
    MappingRow,
    ReferenceMapping,
    image_id_of,
    image_list_bytes,
    mapping_bytes,
    parse_image_list,
    parse_list,
    parse_mapping,
    read_mapping,
    write_mapping,
)

letters = st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"), exclude_characters="/\\\ufeff")
file_names = (
    st.text(letters, min_size=1, max_size=12)
    .map(lambda text: text + ".png")
    .filter(lambda name: name[1] != ":" or not name[0].isascii() or not name[0].isalpha())
)


@st.composite
def mappings(draw):
    targets = draw(st.lists(file_names, max_size=6, unique=True))
    extra = draw(st.sampled_from([(), ("lq_image",), ("weight",), ("lq_image", "weight")]))
    columns = (
        "gt_image",
        *(["lq_image"] if "lq_image" in extra else []),
        "ref_image",
        *(["weight"] * ("weight" in extra)),
    )
    rows = [
        MappingRow(
            target,
            tuple(draw(st.lists(file_names, max_size=4))),
            draw(file_names) if "lq_image" in extra else None,
            draw(st.sampled_from(["1", "0.25", "1e-3"])) if "weight" in extra else None,
        )
        for target in targets
    ]
    return ReferenceMapping(tuple(rows), tuple(columns))


@given(mappings())
@settings(max_examples=150, deadline=None)
def test_what_is_written_reads_the_same_and_writes_the_same_bytes(mapping):
    data = mapping_bytes(mapping)
    back = parse_mapping(data)
    assert back == mapping
    assert mapping_bytes(back) == data


@given(st.lists(st.tuples(file_names, st.lists(file_names, max_size=4)), max_size=6, unique_by=lambda row: row[0]))
@settings(max_examples=60, deadline=None)
def test_agrees_with_pandas_and_the_literal_parser(rows):
    """What published code writes (pandas) is read, and written with the same bytes; it reads what we write."""
    frame = pd.DataFrame({"gt_image": [t for t, _ in rows], "ref_image": [str(r) for _, r in rows]}, dtype=object)
    data = frame.to_csv(index=False).encode()
    mapping = parse_mapping(data)
    assert [(row.gt_image, list(row.references)) for row in mapping.rows] == rows
    assert mapping_bytes(mapping) == data
    again = pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False)
    assert [(t, ast.literal_eval(r)) for t, r in zip(again["gt_image"], again["ref_image"], strict=True)] == rows


@pytest.mark.parametrize(
    "data",
    [
        b"gt_image,ref_image\n00001.png,\"['00002.png', '00003.png']\"\n",
        b"gt_image,lq_image,ref_image\r\n00001.png,00001.png,['00002.png']\r\n",
        b'gt_image,ref_image\n"it\'s, ""that"".png","[""it\'s.png"", \'a,b.png\', \'say ""x"".png\']"\n',
        b"gt_image,ref_image,weight\n1.png,\"['2.png','3.png', ]\",0.5",  # other spacing, trailing comma, no newline
        b'"gt_image","ref_image"\n"1.png","[]"\n',
        b"\xef\xbb\xbfgt_image,ref_image\n1.png,['\\u00e9.png']\n",
        b"gt_image,ref_image\n",
        b"ref_image,gt_image\n['2.png'],00000/1.png\n",
    ],
)
def test_foreign_spellings_are_read_as_pandas_reads_them(data, tmp_path):
    path = tmp_path / "train_references.csv"
    path.write_bytes(data)
    mapping = read_mapping(path)
    frame = pd.read_csv(io.BytesIO(data), dtype=str, keep_default_na=False, encoding="utf-8-sig")
    assert [row.gt_image for row in mapping.rows] == frame["gt_image"].tolist()
    assert [list(row.references) for row in mapping.rows] == [ast.literal_eval(cell) for cell in frame["ref_image"]]
    write_mapping(path, mapping)
    assert read_mapping(path) == mapping


HEAD = "gt_image,lq_image,ref_image\n1.png,1.png,['2.png']\n"


@pytest.mark.parametrize(
    ("tail", "words"),
    [
        ("""3.png,3.png,__import__('os').system('touch hacked')\n""", "line 3: ref_image must be a list"),
        ("""3.png,3.png,[open('x')]\n""", "line 3: ref_image must be a list"),
        ("""3.png,3.png,"['2.png' + '.png']"\n""", "line 3: ref_image must be a list"),
        ("""3.png,3.png,"['2.png' '4.png']"\n""", "line 3: ref_image must be a list"),
        ("""3.png,3.png,"[f'{1}.png']"\n""", "line 3: ref_image must be a list"),
        ("""3.png,3.png,[b'2.png']\n""", "line 3: ref_image must be a list"),
        ("""3.png,3.png,[['2.png']]\n""", "line 3: ref_image must be a list"),
        ("""3.png,3.png,[2]\n""", "line 3: ref_image must be a list"),
        ("""3.png,3.png,2.png\n""", "line 3: ref_image must be a list"),
        ("""3.png,3.png,\n""", "line 3: ref_image must be a list"),
        ("3.png,3.png," + "[" * 20000 + "\n", "line 3: ref_image must be a list"),
        ("3.png,3.png,['\\x00.png']\n", "line 3: image name .* control character"),
        ("3.png,3.png,['\\N{no such}.png']\n", "line 3: ref_image holds a bad string"),
        ("3.png,3.png,['../2.png']\n", r"line 3: image name '../2.png' must be a path inside"),
        ("3.png,3.png,['a/../../2.png']\n", r"line 3: image name .* must be a path inside"),
        ("3.png,3.png,['/etc/passwd']\n", r"line 3: image name '/etc/passwd' must be a path inside"),
        ("3.png,3.png,['C:/x.png']\n", r"line 3: image name .* must be a path inside"),
        ("3.png,3.png,['..\\\\x.png']\n", r"line 3: image name .* must be a path inside"),
        ("3.png,3.png,['\\\\\\\\host\\\\x.png']\n", r"line 3: image name .* must be a path inside"),
        ("../3.png,3.png,['2.png']\n", r"line 3: image name '../3.png'"),
        ("3.png,/3.png,['2.png']\n", r"line 3: image name '/3.png'"),
        ("3.png,3.png,['']\n", "line 3: an empty image name"),
        (",3.png,['2.png']\n", "line 3: an empty image name"),
        ("3.png,['2.png']\n", "line 3: 2 cells, expected 3"),
        ("3.png,3.png,['2.png'],x\n", "line 3: 4 cells, expected 3"),
        ("1.png,1.png,['2.png']\n", "line 3: target '1.png' is listed in line 2 already"),
        ("a/1.jpg,1.png,['2.png']\n", "line 3: target 'a/1.jpg' is listed in line 2 already"),
        ("001,1.png,['2.png']\n", "line 3: target '001' is listed in line 2 already"),
        ('"3.png,3.png,x\n', "line 3: no valid CSV"),
        ("3.png,3.png,['99.png']\n", "line 3: unknown image '99.png'"),
        ("99.png,99.png,['2.png']\n", "line 3: unknown image '99.png'"),
        ("3.png,3.png,['2.png']\n\x00", "line 4: holds a NUL"),
    ],
)
def test_a_hostile_row_is_refused_with_its_line(tail, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "test_references.csv"
    path.write_text(HEAD + tail, newline="")
    with pytest.raises(DatasetError, match="test_references.csv, " + words) as caught:
        read_mapping(path, known={"1", "2", "3"})
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "hacked").exists()


def test_the_line_is_the_one_of_an_editor_after_a_cell_with_a_line_break():
    data = b"gt_image,ref_image\n1.png,\"['2.png',\n '3.png']\"\n../x.png,['2.png']\n"
    assert parse_mapping(data[: data.index(b"..")]).rows[0].references == ("2.png", "3.png")
    with pytest.raises(DatasetError, match="line 4:"):
        parse_mapping(data)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty file"),
        (b"gt_image,lq_image\n", "line 1: no column 'ref_image'"),
        (b"ref_image\n", "line 1: no column 'gt_image'"),
        (b"gt_image,ref_image,label\n", "line 1: columns"),
        (b"gt_image,ref_image,gt_image\n", "line 1: the column 'gt_image' occurs twice"),
        (b"gt_image,ref_image\n1.png,['\xff.png']\n", "line 2: not UTF-8"),
        (b"gt_image,ref_image,weight\n1.png,['2.png'],nan\n", "line 2: weight"),
        (b"gt_image,ref_image,weight\n1.png,['2.png'],exec\n", "line 2: weight"),
        (b"gt_image,ref_image\n1.png,\"['" + b"x" * 200_000 + b"']\"\n", "line 2: no valid CSV"),
    ],
)
def test_a_hostile_file_is_refused(data, words):
    with pytest.raises(DatasetError, match=words):
        parse_mapping(data)


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(DatasetError, match="cannot be read"):
        read_mapping(tmp_path / "none.csv")


@given(st.lists(file_names, max_size=8))
def test_lists_are_what_python_reads(names):
    assert parse_list(repr(names), "here") == tuple(ast.literal_eval(repr(names)))
    assert parse_list(str(tuple(names)).replace("(", "[", 1)[:-1] + "]", "here") == tuple(names)


@given(st.lists(file_names, unique=True, max_size=8), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans())
def test_image_lists_survive(names, newline, final, mark):
    if not names:
        final, newline = False, "\n"
    data = (("\ufeff" if mark else "") + newline.join(names) + (newline if final else "")).encode()
    if len(names) < 2 and not final:
        data = data.replace(b"\r\n", b"\n")
    images = parse_image_list(data)
    assert images.images == tuple(names)
    assert parse_image_list(image_list_bytes(images)) == images


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1.png\n../2.png\n", "line 2: image name"),
        ("1.png\n\n3.png\n", "line 2: an empty"),
        ("1.png\n2.png\n1.png\n", "line 3: image '1.png' is listed in line 1"),
        ("1.png\n9.png\n", "line 2: unknown image"),
    ],
)
def test_a_bad_image_list_is_refused_with_its_line(text, words):
    with pytest.raises(DatasetError, match=words):
        parse_image_list(text.encode(), "train_image.txt", {"1", "2", "3"})


def test_defaults_are_what_pandas_and_the_published_files_look_like():
    mapping = ReferenceMapping((MappingRow("1.png", ("2.png", "3.png"), "1.png"),))
    assert mapping_bytes(mapping) == b"gt_image,lq_image,ref_image\n1.png,1.png,\"['2.png', '3.png']\"\n"
    assert image_list_bytes(ImageList(("1.png",))) == b"1.png\n"
    assert image_id_of("00000/00042.png") == "00042"


@pytest.mark.parametrize(
    "cell", ["['1.png'" + " " * 60_000, "[" + "'1.png', " * 9_000, "['" + "\\\\" * 30_000, " " * 60_000]
)
def test_a_long_cell_is_refused_at_once(cell):
    with pytest.raises(DatasetError, match="must be a list"):
        parse_list(cell, "line 2")


def test_spaces_and_a_last_comma_are_taken():
    assert parse_list(" [ '1.png' , \"2.png\" , ] ", "line 2") == ("1.png", "2.png")
