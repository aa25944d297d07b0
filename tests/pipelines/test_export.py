"""Exports in the hub's layouts: read by the hub's loader, and taken back as a benchmark without loss."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ffhqref.cases.export import export_cases
from ffhqref.cases.packed import PackedCase, Picture, layout_of, read_cases, write_cases
from ffhqref.cli.main import main
from ffhqref.core.errors import ConfigError, DatasetError
from ffhqref.core.images import read_rgb
from ffhqref.store.workspace import Workspace

LAYOUTS = ("imagefolder", "parquet", "webdataset")
CASES = "benchmark=[severe]", "limit=2"


@pytest.fixture(scope="module")
def degraded(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with the cases of severe."""
    root = tmp_path_factory.mktemp("export") / "w"
    shutil.copytree(built, root)
    assert main(["degrade", f"root={root}", *CASES]) == 0
    return root


@pytest.fixture(scope="module")
def exports(degraded: Path) -> dict[str, Path]:
    """The cases in each layout."""
    for layout in LAYOUTS:
        to = degraded.parent / layout
        assert main(["export", f"root={degraded}", f"format={layout}", f"to={to}", *CASES]) == 0
    return {layout: degraded.parent / layout for layout in LAYOUTS}


def picture(seed: int, ending: str = ".png") -> Picture:
    return Picture(ending, np.random.default_rng(seed).bytes(50))


def made_up(case_id: str, references: int, *, gt: bool = True) -> PackedCase:
    age = 31.25 if references else None
    given = tuple(picture(rank, ".jpg" if rank else ".png") for rank in range(references))
    return PackedCase(
        case_id,
        f"t-{case_id}",
        references or None,
        age,
        age,
        '{"scale": 0.1}',
        picture(7),
        picture(8) if gt else None,
        given,
    )


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("gt", [True, False])
def test_every_layout_is_read_as_it_was_written(tmp_path, monkeypatch, layout, gt):
    monkeypatch.setattr("ffhqref.cases.packed.SHARD_BYTES", 300)  # several shards
    cases = [made_up(f"kim/{n}.0", n, gt=gt) for n in range(4)]
    write_cases(tmp_path / "x", layout, "test", iter(cases), 3)
    assert layout_of(tmp_path / "x") == layout
    assert sorted(read_cases(tmp_path / "x"), key=lambda case: case.case_id) == cases


def test_a_workspace_is_exported_whole(degraded, exports):
    found = {layout: list(read_cases(folder / "severe")) for layout, folder in exports.items()}
    assert found["parquet"] == found["imagefolder"] == found["webdataset"]
    workspace = Workspace(degraded, read_only=True)
    cases = workspace.read("cases").set_index("case_id")
    drawn = workspace.read("degradations").set_index("lq_path")
    assert [case.case_id for case in found["parquet"]] == sorted(cases.index)
    for case in found["parquet"]:
        row = cases.loc[case.case_id]
        assert case.lq.data == workspace.file(row["lq_path"]).read_bytes()
        assert case.gt.data == workspace.image(row["gt_path"]).read_bytes()
        assert [one.data for one in case.references] == [
            workspace.image(path).read_bytes() for path in row["reference_paths"]
        ]
        assert json.loads(case.parameters)["sigma_x"] == drawn.loc[row["lq_path"], "sigma_x"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_hubs_loader_reads_it_offline(exports, layout, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="the hub's loader is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    loaded = datasets.load_dataset(str(exports[layout]), "severe", cache_dir=str(tmp_path))
    (split,) = loaded.values()
    cases = {case.case_id: case for case in read_cases(exports[layout] / "severe")}
    assert len(split) == len(cases) > 0
    for row in split:
        row = {**row, **row["json"]} if "json" in row else row
        images = {name.removesuffix(".png"): value for name, value in row.items()}
        case = cases[row["case_id"]]
        for name, wanted in (("lq", case.lq), ("gt", case.gt)):
            path = tmp_path / f"{name}{wanted.ending}"
            path.write_bytes(wanted.data)
            assert (np.asarray(images[name].convert("RGB")) == read_rgb(path)).all()
        if layout != "webdataset":
            assert len(row["references"]) == len(case.references)
        assert images["references"] if layout != "webdataset" else row["references"] == len(case.references)


@pytest.mark.parametrize(
    ("origin", "marked"),
    [
        ({"dataset": "ffhq", "released": False, "options": {"split": "test", "degradation": "severe"}}, True),
        ({"dataset": "celeba_hq", "released": False, "options": {"split": "test"}}, False),
        (None, False),
    ],
)
def test_an_export_keeps_whose_people_it_tests(degraded, exports, tmp_path, capsys, origin, marked):
    """Leak marks of an imported benchmark were gone: it was nobody's."""
    from ffhqref.leaderboard.published import leak_mark
    from ffhqref.leaderboard.reading import _benchmarks
    from ffhqref.restorers.base import RestorerInfo
    from ffhqref.store.tables import read_metadata

    told = json.loads((exports["parquet"] / "severe" / "benchmark.json").read_text())
    assert told["dataset"] == "folder"
    assert told["options"]["split"] == "test"
    assert told["options"]["degradation"] == "severe"
    shutil.copytree(degraded, tmp_path / "w")
    shutil.copytree(exports["parquet"], tmp_path / "x")
    (tmp_path / "x" / "severe" / "benchmark.json").unlink()
    if origin:
        (tmp_path / "x" / "severe" / "benchmark.json").write_text(json.dumps(origin))
    back = f"+benchmark.back={{exported: {tmp_path}/x/severe}}"
    assert main(["degrade", f"root={tmp_path}/w", "benchmark=[]", back]) == 0
    assert ("whose people these are is not known" in capsys.readouterr().err) == (origin is None)
    workspace = Workspace(tmp_path / "w", read_only=True)
    facts = {"cases": read_metadata(workspace.root, "cases"), "images": {"dataset": {"name": "folder"}}, "scores": {}}
    info = _benchmarks(workspace.picture_hashes(), workspace.read("cases"), facts)["back"]
    assert bool(leak_mark(RestorerInfo("codeformer", trained_on=("FFHQ",)), info)) == marked
    assert info.degradation == ("severe" if marked else "")


def test_two_splits_in_one_export_are_refused(exports, degraded, tmp_path, capsys):
    shutil.copytree(degraded, tmp_path / "w")
    shutil.copytree(exports["imagefolder"] / "severe", tmp_path / "x")
    shutil.copytree(tmp_path / "x" / "test", tmp_path / "x" / "train")
    back = f"+benchmark.back={{exported: {tmp_path}/x}}"
    assert main(["degrade", f"root={tmp_path}/w", "benchmark=[]", back]) == 2
    assert "cases in test and in train; expected one split" in capsys.readouterr().err


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_comes_back_as_a_benchmark(degraded, exports, layout):
    root = degraded.parent / f"back-{layout}"
    shutil.copytree(degraded, root)
    shutil.rmtree(root / "lq")
    back = f"+benchmark.severe={{exported: {exports[layout]}/severe, references: null}}"
    assert main(["degrade", f"root={root}", "benchmark=[]", back]) == 0
    before, after = (Workspace(place, read_only=True) for place in (degraded, root))
    facts = ["case_id", "target_id", "identity_id", "age", "age_gap"]
    pd.testing.assert_frame_equal(before.read("cases")[facts], after.read("cases")[facts])
    drawn = [frame.drop(columns="lq_path") for frame in (before.read("degradations"), after.read("degradations"))]
    pd.testing.assert_frame_equal(*drawn)
    columns = ["lq_path", "gt_path", "reference_paths"]
    for old, new in zip(before.read("cases")[columns].values, after.read("cases")[columns].values, strict=True):
        assert (read_rgb(before.file(old[0])) == read_rgb(after.file(new[0]))).all()
        pairs = zip([old[1], *old[2]], [new[1], *new[2]], strict=True)
        assert all((read_rgb(before.image(a)) == read_rgb(after.image(b), 512)).all() for a, b in pairs)


@pytest.mark.filterwarnings("ignore:ConjunctiveGraph", "ignore:The inplace keyword")
def test_croissant_describes_it(exports):
    mlcroissant = pytest.importorskip("mlcroissant")
    for layout, folder in exports.items():
        found = mlcroissant.Dataset(jsonld=folder / "croissant.json")
        assert not found.metadata.issues.errors
        if layout == "parquet":
            rows = list(found.records("severe/test-00000"))
            assert {row["severe/test-00000/case_id"].decode() for row in rows} == {
                case.case_id for case in read_cases(folder / "severe")
            }


def test_mistakes_are_one_line(degraded, exports, tmp_path, capsys):
    assert main(["export", f"root={degraded}", *CASES]) == 2
    assert "to=FOLDER" in capsys.readouterr().err
    workspace = Workspace(degraded, read_only=True)
    with pytest.raises(ConfigError, match="is there already; choose a new folder"):
        export_cases(workspace, workspace.read("cases"), exports["parquet"], "parquet")
    with pytest.raises(DatasetError, match="no cases of ffhqref export there"):
        list(read_cases(tmp_path))
    shard = tmp_path / "x" / "test-00000.parquet"
    shard.parent.mkdir()
    shard.write_bytes(b"PAR1")
    with pytest.raises(DatasetError, match=r"it is damaged: export it again"):
        list(read_cases(shard.parent))
