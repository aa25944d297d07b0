"""Names of benchmarks that can be cited: recorded with their content, refused for another content, printed."""

from __future__ import annotations

import gc
import shutil
from pathlib import Path

import pytest

from ffhqref.cases.benchmark import BENCHMARKS, Benchmark
from ffhqref.cases.definitions import PUBLIC, Definition, check_definition, public_id
from ffhqref.cli.main import main
from ffhqref.core.errors import ConfigError
from ffhqref.core.hashing import sha256_file
from ffhqref.core.images import read_rgb, save_png
from ffhqref.leaderboard.published import published_numbers
from ffhqref.store.tables import read_metadata


@pytest.fixture
def degrade(built, tmp_path, capsys):
    """Run ``ffhqref degrade`` in one workspace; return its status and what it said."""
    root = tmp_path / "w"
    shutil.copytree(built, root)

    def run(*arguments: str) -> tuple[int, str]:
        status = main(["degrade", f"root={root}", "benchmark=[severe]", *arguments])
        gc.collect()  # what failed may hold the lock
        told = capsys.readouterr()
        return status, told.out + told.err

    run.root = root
    return run


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: sha256_file(path) for path in folder.rglob("*.png")}


def test_an_id_of_a_folder_from_outside_keeps_its_images(degrade, tmp_path):
    """Other files under the names of the folder, and an id: refused, and the imported images stay."""
    targets = tmp_path / "released"
    assert degrade("benchmark=[severe]")[0] == 0
    shutil.copytree(degrade.root / "lq" / "severe", targets)
    benchmark = f"+benchmark.mine={{lq_folder: {targets}, split: test, id: mine@1}}"
    assert degrade("benchmark=[]", benchmark)[0] == 0
    before = hashes(degrade.root / "lq" / "mine")
    for path in targets.glob("*.png"):
        save_png(path, 255 - read_rgb(path))
    status, told = degrade("benchmark=[]", benchmark)
    assert status == 2
    assert "benchmark 'mine' is no longer mine@1: other low-quality images" in told
    assert hashes(degrade.root / "lq" / "mine") == before


def test_an_id_stands_for_one_content(degrade):
    status, told = degrade("+benchmark.severe.id=mine@1")
    assert status == 0, told
    (first,) = read_metadata(degrade.root, "cases")["definitions"].items()
    assert first[0] == "mine@1"
    assert first[1]["definition"][:12] in told
    before = hashes(degrade.root / "lq")
    for change, parts in (
        ("benchmark.severe.references=1", "references, protocol"),
        ("seed=7", "low-quality images"),
        ("benchmark.severe.definition=abc", None),
    ):
        status, told = degrade("+benchmark.severe.id=mine@1", change)
        assert status == 2
        line = (
            f"ffhqref: benchmark 'severe' is no longer mine@1: other {parts}; raise the version "
            "(benchmark.severe.id=mine@2) or drop the id (benchmark.severe.id=null)"
            if parts
            else "benchmark 'severe' is not mine@1"
        )
        assert line in told
        assert hashes(degrade.root / "lq") == before, "what is refused leaves the images as they were"
    assert read_metadata(degrade.root, "cases")["definitions"] == dict([first])
    status, told = degrade("+benchmark.severe.id=mine@1")
    assert status == 0
    assert "to do" not in told
    assert degrade("+benchmark.severe.id=mine@2", "seed=7")[0] == 0
    assert hashes(degrade.root / "lq") != before
    facts = read_metadata(degrade.root, "cases")
    assert (set(facts["definitions"]), facts["ids"]) == ({"mine@1", "mine@2"}, {"severe": "mine@2"})
    assert degrade("+benchmark.severe.id=mine@1")[0] == 0
    assert read_metadata(degrade.root, "cases")["ids"] == {"severe": "mine@1"}, "cited by the id of these very cases"
    assert degrade("+benchmark.severe.id=null", "seed=7")[0] == 0
    facts = read_metadata(degrade.root, "cases")
    assert (set(facts["definitions"]), facts["ids"]) == ({"mine@1", "mine@2"}, {}), "dropped: cited by none"


def test_a_published_definition_can_be_asked_for():
    made: Definition = {"benchmark": "b", "definition": "abc123", "parts": {"targets": "1", "protocol": "2"}}
    check_definition("b@1", made, {"b@1": made, "c@1": {**made, "definition": "f"}}, "abc")
    with pytest.raises(ConfigError, match=r"'b' is not b@1: its definition is abc123, expected def; raise .*=b@2\)"):
        check_definition("b@1", made, {}, "def")


def preset(name: str, folder: Path, **changes: object) -> Benchmark:
    options = dict(BENCHMARKS.get(name)[name])
    options |= {key: str(folder) for key in ("lq_folder", "gt_folder") if key in options}
    return Benchmark.of(name, {**options, **changes})


def test_presets_have_ids_where_they_are_what_they_say(tmp_path):
    whole = {"released": False, "cases": 100, "whole": True}
    assert public_id(preset("severe", tmp_path), "ffhq", **whole) == "ffhqref-severe@1"
    assert public_id(preset("severe", tmp_path), "folder", **whole) is None
    assert public_id(preset("severe", tmp_path), "ffhq", **{**whole, "whole": False}) is None
    assert public_id(preset("severe", tmp_path, references=3), "ffhq", **whole) is None
    assert public_id(preset("severe", tmp_path, id=None), "ffhq", **whole) is None
    assert public_id(preset("refldm_severe", tmp_path), "ffhq", **whole) is None
    assert public_id(preset("refldm_severe", tmp_path), "ffhq", **{**whole, "released": True}) == "refldm-severe@1"
    assert public_id(preset("lfw_test", tmp_path), "sample", **whole) is None
    assert public_id(preset("lfw_test", tmp_path), "sample", **{**whole, "cases": 1711}) == "lfw-test@1"


def test_every_release_with_published_numbers_has_a_preset_and_an_id():
    known = published_numbers().dropna(subset=["lq_release"])
    assert {name.partition("@")[0] for name, _, _ in PUBLIC.values()} >= set(known["lq_release"])
    for name in PUBLIC:
        options = BENCHMARKS.get(name)[name]
        if "published_set" not in options:
            continue
        mine = known[known["dataset"] == options["published_set"]]
        mine = mine[mine["degradation"] == options["published_degradation"]]
        assert set(mine["lq_release"]) == {PUBLIC[name][0].partition("@")[0]}


def test_images_made_here_are_no_published_set(tmp_path):
    """Printed numbers stood beside those on images that only have the same level's name."""
    with pytest.raises(ConfigError, match="images made here are others"):
        preset("severe", tmp_path, published_set="FFHQ-Ref test")
    assert preset("refldm_severe", tmp_path).published_set == "FFHQ-Ref test"


def test_an_id_has_a_version(tmp_path):
    with pytest.raises(ConfigError, match=r"benchmark\.severe\.id"):
        preset("severe", tmp_path, id="Severe")
