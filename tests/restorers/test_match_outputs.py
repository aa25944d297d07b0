"""Files matched to cases: by name or list, never by position; what is doubtful is refused."""

import pytest

from ffhqref.core.errors import FfhqrefError
from ffhqref.restorers.match import CaseName, match_outputs

SEVERE = [CaseName("severe", name, f"lq-{name}") for name in ("00001", "00002", "alice/01")]


@pytest.fixture
def folder(tmp_path):
    def fill(*names):
        for name in names:
            (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "out" / name).write_bytes(b"")
        return tmp_path / "out"

    return fill


def found(folder, cases=SEVERE, **rules):
    matched = match_outputs(folder, cases, what="mine", **rules)
    return {str(case): path.relative_to(folder).as_posix() for case, path in matched.files.items()}, matched


def test_by_id_in_any_folder_and_with_any_ending(folder):
    files, matched = found(folder("run/00001.png", "00002.JPG", "x/alice/01.webp", "00003.png"))
    assert files == {
        "severe/00001": "run/00001.png", "severe/00002": "00002.JPG", "severe/alice/01": "x/alice/01.webp"
    }  # fmt: skip
    assert not matched.missing
    told = "\n".join(matched.remarks)
    assert "3 of 3 cases have a file" in told
    assert "matched by case id" in told
    assert "1 files belong to no case: 00003.png" in told
    assert "2 outputs are in a lossy format, so that the scores include its loss: 00002.JPG, x/alice/01.webp" in told


def test_by_the_name_of_the_lq_file_and_missing_ones_are_named(folder):
    files, matched = found(folder("lq-00002.png"))
    assert files == {"severe/00002": "lq-00002.png"}
    assert [str(case) for case in matched.missing] == ["severe/00001", "severe/alice/01"]
    assert any("2 cases have no file: severe/00001, severe/alice/01" in line for line in matched.remarks)


def test_folders_called_as_benchmarks_tell_equal_ids_apart(folder):
    cases = [CaseName("moderate", "1"), CaseName("severe", "1"), CaseName("blind", "7")]
    files, matched = found(folder("moderate/1.png", "severe/1.png"), cases)
    assert files == {"moderate/1": "moderate/1.png", "severe/1": "severe/1.png"}
    assert [str(case) for case in matched.absent] == ["blind/7"]
    assert any("no file for any of the 1 cases of blind" in line for line in matched.remarks)
    with pytest.raises(FfhqrefError, match=r"1\.png in .* could be of the cases moderate/1 and severe/1; sort"):
        found(folder("1.png"), cases)


def test_patterns(folder):
    out = folder("00001_00.png", "00001_01.png", "severe-00002.png")
    assert found(out, pattern="{id}_00.png")[0] == {"severe/00001": "00001_00.png"}
    assert found(out, pattern="{benchmark}-{id}")[0] == {"severe/00002": "severe-00002.png"}
    with pytest.raises(FfhqrefError, match=r"none of the 3 images .*; is it pattern=\{id\}_00\?"):
        found(out)
    with pytest.raises(FfhqrefError, match=r"no placeholder '\{idd\}'. Did you mean 'id'"):
        found(out, pattern="{idd}.png")
    with pytest.raises(FfhqrefError, match=r"expected \{id\} or \{lq\}"):
        found(out, pattern="out.png")


def test_a_list_of_pairs(folder, tmp_path):
    out, pairs = folder("a.png", "b.png", "c.png"), tmp_path / "pairs.csv"
    pairs.write_text("lq,output\nlq-00001.png,b.png\nlq-00002.png,gone.png\nlq-9.png,a.png\n")
    files, matched = found(out, pairs=pairs)
    assert files == {"severe/00001": "b.png"}
    told = "\n".join(matched.remarks)
    assert "1 lines of pairs.csv name no case: lq-9.png" in told
    assert "1 files that pairs.csv names are not there: gone.png" in told
    assert "2 files belong to no case: a.png, c.png" in told
    assert "not read" not in told
    pairs.write_text("case_id,lq,output,score\n00001,lq-00002.png,a.png,3\n")
    told = "\n".join(found(out, pairs=pairs)[1].remarks)
    assert "2 columns of pairs.csv are not read: lq, score" in told
    people = [CaseName("folder", name, name) for name in ("ann/01", "bob/01")]
    pairs.write_text("lq,output\nann/01.png,b.png\nbob/01.png,a.png\n")
    assert found(out, people, pairs=pairs)[0] == {"folder/ann/01": "b.png", "folder/bob/01": "a.png"}
    pairs.write_text("lq,output\ndata/lq-00001.png,b.png\n")
    assert found(out, pairs=pairs)[0] == {"severe/00001": "b.png"}
    pairs.write_text("case_id,output\n00001,a.png\n00002,a.png\n")
    with pytest.raises(FfhqrefError, match=r"line 3: 'a.png' occurs twice"):
        found(out, pairs=pairs)
    pairs.write_text("case_id,output\n00001,a.png\n")
    with pytest.raises(FfhqrefError, match="'00001' is a case of severe and of mild; add the column benchmark"):
        found(out, [*SEVERE, CaseName("mild", "00001")], pairs=pairs)


@pytest.mark.parametrize(
    ("names", "cases", "words"),
    [
        (("00001.png", "b/00001.jpg"), SEVERE, "severe/00001 has 2 files .* 00001.png and b/00001.jpg"),
        (("1.png",), [CaseName("s", "1", "2"), CaseName("s", "3", "1")], "1.png .* could be of the cases s/1 and s/3"),
        (("kim.png",), SEVERE, "there 'kim.png', the cases have '00001'; give a pattern"),
    ],
)  # fmt: skip
def test_doubtful_names_are_refused(folder, names, cases, words):
    with pytest.raises(FfhqrefError, match=words):
        found(folder(*names), cases)


def test_permuted_names_pair_by_name_never_by_position(folder):
    cases = [CaseName("s", name) for name in "abc"]
    files, _ = found(folder("c.png", "a.png"), cases)
    assert files == {"s/a": "a.png", "s/c": "c.png"}
