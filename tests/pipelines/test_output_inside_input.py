"""Output must not lie among input, or the next run reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from ffhqref.config.context import open_context
from ffhqref.config.inputs import check_inputs
from ffhqref.config.run import read_config
from ffhqref.core.errors import ConfigError


def config(**values):
    return read_config(values)


def folder_set(path, **more):
    return {"name": "folder", "path": str(path), **more}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder of images that a user stands in."""
    folder = tmp_path / "faces"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_the_default_workspace_in_the_folder_of_images(here):
    with pytest.raises(ConfigError, match=r"root=workspace lies in dataset\.path=\., .* such as root=\.\./workspace$"):
        open_context(config(dataset=folder_set("."))).__enter__()
    assert not (here / "workspace").exists()
    check_inputs(config(dataset=folder_set("."), root="../workspace"))


@pytest.mark.parametrize("root", ["{faces}", "{faces}/deep/ws", "{link}/ws", "."])
def test_every_way_into_the_images_is_seen(here, tmp_path, root):
    (tmp_path / "link").symlink_to(here)
    with pytest.raises(ConfigError, match=r"lies in dataset\.path=") as caught:
        check_inputs(config(dataset=folder_set(here), root=root.format(faces=here, link=tmp_path / "link")))
    remedy = str(caught.value).rpartition("root=")[2]
    check_inputs(config(dataset=folder_set(here), root=remedy))


def test_the_outermost_folder_counts(here, tmp_path):
    lq = tmp_path / "lq"
    lq.mkdir()
    (tmp_path / "data").symlink_to(tmp_path)
    given = {"b": {"lq_folder": str(lq)}, "c": {"lq_folder": str(tmp_path / "data")}}
    with pytest.raises(ConfigError, match=r"in benchmark\.c\.lq_folder") as caught:
        check_inputs(config(benchmark=given, root=str(lq / "ws")))
    check_inputs(config(benchmark=given, root=str(caught.value).rpartition("root=")[2]))


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("benchmark.b.lq_folder", {"benchmark": {"b": {"lq_folder": "{}"}}}),
        ("benchmark.b.reference_folder", {"benchmark": {"b": {"lq_folder": "x", "reference_folder": "{}"}}}),
        (r"benchmark\.b\.reference_list", {"benchmark": {"b": {"lq_folder": "x", "reference_list": "{}/list.csv"}}}),
        (r"restorer\.mine\.path", {"restorer": {"mine": {"name": "outputs", "path": "{}"}}}),
        (r"restorer\.outputs\.path", {"restorer": {"outputs": {"path": "{}"}}}),
        (r"train\.faces\.path", {"train": {"faces": {"path": "{}"}}}),
        ("contamination.benchmarks", {"contamination": {"benchmarks": ["{}"]}}),
    ],
)
def test_every_folder_that_is_searched(here, key, values):
    def filled(value):
        if isinstance(value, dict):
            return {name: filled(item) for name, item in value.items()}
        return [filled(item) for item in value] if isinstance(value, list) else value.format(here)

    with pytest.raises(ConfigError, match=rf"lies in {key}="):
        check_inputs(config(root=str(here / "ws"), **filled(values)))


def test_other_folders_that_are_written(here, tmp_path):
    for key, more in (
        ("train.folder", {"train": {"folder": str(here / "checkpoints")}}),
        ("restorer.x.scratch", {"restorer": {"x": {"scratch": str(here)}}}),
    ):
        with pytest.raises(ConfigError, match=f"{key}=.* lies in dataset"):
            check_inputs(config(dataset=folder_set(here), root=str(tmp_path / "ws"), **more))


def test_images_of_the_workspace_are_read_only_where_the_run_does_not_write(tmp_path):
    root = tmp_path / "ws"
    for name in ("aligned", "outputs/lq/moderate", "lq/moderate", "mine"):
        (root / name).mkdir(parents=True)
    for values in (
        {"dataset": folder_set(root / "aligned", aligned=False)},
        {"dataset": folder_set(root / "outputs"), "restorer": {"lq": {}}},
        {"benchmark": {"own": {"lq_folder": str(root / "lq")}}},
    ):
        with pytest.raises(ConfigError, match="which this run writes: the next run would read its own output"):
            check_inputs(config(root=str(root), **values))
    for values in (
        {"dataset": folder_set(root / "mine")},
        {"dataset": folder_set(root / "aligned")},
        {"benchmark": {"own": {"lq_folder": str(root / "lq" / "moderate")}}},
        {"benchmark": {"own": {"lq_folder": str(root / "outputs" / "lq" / "moderate")}}, "restorer": {"lq": {}}},
    ):
        check_inputs(config(root=str(root), **values))


def test_what_a_search_does_not_find_is_no_input(here, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (here / "linked").symlink_to(tmp_path / "elsewhere")
    for root in (here / ".ws", here / "linked" / "ws", Path(f"{here}-ws")):
        check_inputs(config(dataset=folder_set(here), root=str(root)))


def test_a_workspace_that_is_merged_and_written(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    (tmp_path / "link").symlink_to(first)
    for root in (first, tmp_path / "link", second):
        with pytest.raises(ConfigError, match=r"own report would be overwritten; choose .* root=.*/merged$"):
            check_inputs(config(root=str(root), merge=[str(first), str(second)]))
    check_inputs(config(root=str(first / "both"), merge=[str(first), str(second)]))


def test_a_release_that_the_build_overwrites(tmp_path):
    for release in ("ws/FFHQ-Ref", "ws/FFHQ-Ref/reference_mapping"):
        with pytest.raises(ConfigError, match=r"where root=.* writes its own lists"):
            check_inputs(config(root=str(tmp_path / "ws"), release=str(tmp_path / release)))
    check_inputs(config(root=str(tmp_path / "new"), release=str(tmp_path / "ws" / "FFHQ-Ref")))
