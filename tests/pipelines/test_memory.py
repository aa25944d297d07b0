"""A workspace remembers its config: later commands take what the command line does not name from there."""

import gc
import re
import shutil

import pytest
from omegaconf import OmegaConf

from ffhqref.cli.main import main
from ffhqref.config import source
from ffhqref.config.memory import own_parts, recall, remember
from ffhqref.config.overrides import named_keys
from ffhqref.core.errors import ConfigError, TableError
from ffhqref.store import tables
from ffhqref.store.mine import is_signed, sign


@pytest.fixture(autouse=True)
def registered():
    source.register([])


def composed(root, arguments, command="run"):
    """Return the resolved config of a command line, and what was said."""
    said = []
    config = recall(source.compose([f"root={root}", *arguments]), command, named_keys(arguments), said.append)
    return config, said


def kept(root, *arguments, command="run"):
    config, _ = composed(root, arguments, command)
    remember(config, command)


def plain(config):
    values = OmegaConf.to_container(config, resolve=True)
    for group in ("benchmark", "restorer", "metric"):
        values[group].pop("_default_", None)
    return values


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["embedder.max_distance=0.3", "seed=7"],
        ["embedder=onnx", "embedder.path=net.onnx", "embedder.max_distance=0.5", "embedder.min_distance=0.1"],
        ["dataset=folder", "dataset.path=album", "dataset.test=3", "age_sets.cross_min=6"],
        ["metric=[psnr,ids]", "metric.ids.crop=full", "restorer=[lq]", "+restorer.mine={name: nlm, strength: 5}"],
        ["experiment=quick", "report.failures=excluded", "set_metric=[kid]"],
        ["+benchmark.mine={degradation:{sigma:[4,4],scale:[8,8],noise:[0,0],jpeg:[90,90]},split:test}"],
    ],
    ids=str,
)  # fmt: skip
def test_a_command_without_keys_has_the_config_that_the_workspace_was_made_with(tmp_path, arguments):
    root = tmp_path / "w"
    kept(root, *arguments)
    first = plain(source.compose([f"root={root}", *arguments]))
    again = plain(composed(root, [])[0])
    assert {**again, "limit": None} == {**first, "limit": None}  # a look at few targets is not remembered


def test_what_the_command_line_names_wins_and_is_told(tmp_path):
    root = tmp_path / "w"
    kept(root, "embedder=onnx", "embedder.path=net.onnx", "embedder.max_distance=0.5", "embedder.min_distance=0.1")
    config, said = composed(root, ["embedder.max_distance=0.4"])
    assert (config.embedder.name, config.embedder.path, config.embedder.max_distance) == ("onnx", "net.onnx", 0.4)
    assert config.build.max_distance == 0.4
    assert said == ["other than this workspace was made: embedder.max_distance=0.4 (not embedder.max_distance=0.5)"]
    config, said = composed(root, ["embedder=dlib"])
    assert config.embedder == source.compose([]).embedder
    assert said == ["other than this workspace was made: embedder=dlib (not embedder=onnx)"]
    assert composed(root, [])[1] == ["as this workspace was made: embedder=onnx"]
    assert composed(root, [], "restore")[1] == []  # says nothing of what it does not use


@pytest.mark.parametrize(
    ("group", "written", "option"),
    [
        ("benchmark", "{degradation:{sigma:[4,4],scale:[8,8],noise:[0,0],jpeg:[90,90]},split:test}", "split"),
        ("restorer", "{name:nlm,strength:5}", "strength"),
        ("metric", "{name:ids,crop:full}", "crop"),
    ],
)
def test_a_part_of_ones_own_can_be_named_later(tmp_path, capsys, group, written, option):
    root = tmp_path / "w"
    kept(root, f"+{group}.mine={written}")
    gc.collect()
    assert main(["run", f"root={root}", f"{group}=[mine]", "--cfg", "job"]) == 0
    made = OmegaConf.create(capsys.readouterr().out)[group]
    assert list(made) == ["mine"]
    assert made.mine[option] == source.compose([f"+{group}.mine={written}"])[group].mine[option]
    assert main(["run", f"root={tmp_path}/other", f"{group}=[mine]", "--cfg", "job"]) == 2
    assert f"unknown {group} 'mine'" in capsys.readouterr().err
    assert main(["run", f"root={root}", f"{group}=[mien]", "--cfg", "job"]) == 2
    assert "Did you mean 'mine'" in capsys.readouterr().err


def test_each_command_keeps_its_own_sections(tmp_path):
    root = tmp_path / "w"
    kept(root, "seed=5", "metric=[psnr]", command="build")
    kept(root, "metric=[niqe]", command="score")
    kept(root, "metric=[ssim]", "report.failures=excluded", command="report")
    kept(root, "metric=[ids]", "dry_run=true", command="score")
    config, _ = composed(root, [])
    assert config.seed == 5
    assert [name for name in config.metric if name != "_default_"] == ["niqe"]
    assert config.report.failures == "worst"


def test_a_damaged_config_is_refused_with_a_remedy_that_works(tmp_path):
    """Without it a command would take the default data set, and build the workspace anew from other images."""
    kept(tmp_path, "dataset.test=3")
    table = tables.table_path(tmp_path, "config")
    data = bytearray(table.read_bytes())
    data[len(data) // 2] ^= 4
    table.write_bytes(data)
    with pytest.raises(TableError, match=r"config.*damaged.*; delete it and name the keys of this workspace once"):
        composed(tmp_path, [])
    table.unlink()
    kept(tmp_path, "dataset.test=3")
    assert composed(tmp_path, [])[0].dataset.test == 3


def test_paths_are_found_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("album", "lq", "sample", "severe"):
        (tmp_path / name).mkdir()
    (tmp_path / "mild.yaml").touch()
    kept(
        "w", "dataset=folder", "dataset.path=album", "+benchmark.mine={lq_folder: lq, references: null}",
        "+benchmark.own={degradation: mild.yaml, split: test}", "+benchmark.preset={degradation: severe, split: test}",
        "+restorer.mine={name: outputs, path: lq}", "+restorer.theirs={name: command, recipe: mild.yaml}",
    )  # fmt: skip
    config, _ = composed(tmp_path / "w", [])
    assert config.dataset.path == str(tmp_path / "album")
    assert config.benchmark.mine.lq_folder == config.restorer.mine.path == str(tmp_path / "lq")
    assert config.dataset.name == "folder"
    assert config.benchmark.own.degradation == config.restorer.theirs.recipe == str(tmp_path / "mild.yaml")
    assert config.benchmark.preset.degradation == "severe", "a name, whatever folder is called so"


def test_a_folder_that_looks_like_a_number_stays_a_text():
    assert source.compose(["+benchmark.mine={lq_folder: '2024_11_28', references: null}"]).benchmark.mine.lq_folder
    from ffhqref.config.overrides import checked

    assert checked(["benchmark.lfw_test.lq_folder=2024_11_28"]) == ["benchmark.lfw_test.lq_folder='2024_11_28'"]


@pytest.fixture
def command(capsys):
    def run(name, root, *arguments):
        gc.collect()
        status = main([name, f"root={root}", "engine.workers=0", "report.n_bootstrap=100", *arguments])
        said = capsys.readouterr()
        return status, said.out + said.err

    return run


def test_audit_uses_the_threshold_of_the_build(built, command, tmp_path):
    root = tmp_path / "w"
    shutil.copytree(built, root)
    assert command("build", root, "embedder.max_distance=0.03")[0] == 0
    status, said = command("audit", root, "audit.worst=1")
    assert status == 0
    assert "as this workspace was made: embedder.max_distance=0.03" in said
    remembered = (root / "audit.csv").read_bytes()
    assert command("audit", root, "audit.worst=1", "embedder.max_distance=0.03")[0] == 0
    assert (root / "audit.csv").read_bytes() == remembered
    status, said = command("audit", root, "audit.worst=1", "embedder.max_distance=0.05")
    assert (root / "audit.csv").read_bytes() != remembered
    assert "embedder.max_distance=0.05 (not embedder.max_distance=0.03)" in said
    assert command("build", root)[0] == 0
    assert tables.read_metadata(root, "pairs")["config"]["max_distance"] == 0.03


def test_score_takes_the_metrics_and_refuses_methods_that_are_not_there(built, command, tmp_path):
    root = tmp_path / "w"
    shutil.copytree(built, root)
    assert command("degrade", root, "benchmark=[severe]", "limit=1")[0] == 0
    assert command("restore", root, "restorer=[lq,bicubic]")[0] == 0
    assert command("score", root, "metric=[psnr]")[0] == 0
    assert command("score", root)[0] == 0
    assert set(tables.read_table(root, "scores")["metric"]) == {"psnr"}
    status, said = command("score", root, "restorer=[nlm]")
    assert status == 2
    assert "restorer=nlm: not in this workspace, which has bicubic, lq" in said
    status, said = command("score", root, "restorer=[lq]")
    assert status == 0
    assert "not named, so not in the table: bicubic" in said


REACHING = [
    (["+restorer.mine={name: command, recipe: r.yaml}"], "restore", "restorer.mine.recipe"),
    (["+restorer.mine={_target_: os.path.join}"], "run", "restorer.mine._target_"),
    (["+restorer.both={name: chain, parts: [{name: command, recipe: r.yaml}]}"], "restore", "restorer.both"),
    (["embedder=onnx", "embedder.path=net.onnx", "embedder.max_distance=0.5"], "build", "embedder.path"),
    (["dataset=folder", "dataset.path=album", "dataset.test=3"], "build", "dataset.path"),
    (["dataset=folder", "dataset.path=album", "dataset.licence=${oc.env:HOME}"], "build", "dataset."),
    (["+metric.x={name: 'pyiqa:clipiqa', allow_remote_code: true}"], "score", "metric.x.allow_remote_code"),
    (["release=/somewhere"], "build", "release"),
]


@pytest.mark.parametrize(("arguments", "command", "key"), REACHING, ids=[key for _, _, key in REACHING])
def test_what_a_stranger_recorded_runs_no_program_and_reaches_no_file(tmp_path, monkeypatch, arguments, command, key):
    root = tmp_path / "w"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "stranger"))
    kept(root, *arguments, command="run")
    recorded = table_sections(root)
    assert composed(root, [], command)[1] is not None  # the stranger himself goes on as before
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "me"))
    with pytest.raises(ConfigError, match=rf"recorded {re.escape(key)}.*name it yourself"):
        composed(root, [], command)
    others = "restore" if command == "build" else "degrade"
    config, _ = composed(root, [], others)  # what the command does not need is left alone
    section = key.partition(".")[0]
    assert "recipe" not in str(config[section])
    assert not {"mine", "both", "x"} & {name for parts in own_parts([f"root={root}"], "").values() for name in parts}
    assert config[section] == source.compose([f"root={root}"])[section]
    remember(config, others)  # and is not signed on the way
    assert table_sections(root).get(section) != recorded[section]


def table_sections(root):
    frame = tables.read_table(root, "config")
    return dict(zip(frame["section"], frame["value"], strict=True))


def test_plain_values_of_a_stranger_are_taken_as_before(tmp_path, monkeypatch):
    root = tmp_path / "w"
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "stranger"))
    kept(
        root,
        "embedder.max_distance=0.3",
        "seed=7",
        "metric=[psnr,ids]",
        "restorer=[lq,bicubic]",
        "age_sets.cross_min=6",
    )
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "me"))
    config, _ = composed(root, [])
    assert (config.seed, config.embedder.max_distance, set(config.restorer) - {"_default_"}) == (
        7,
        0.3,
        {"lq", "bicubic"},
    )


def test_a_key_that_cannot_be_made_signs_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    assert sign("a") == ""
    assert not is_signed("", "a")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert is_signed(sign("a", "b"), "a", "b")
    assert not is_signed(sign("a", "b"), "a", "c")
    assert ((tmp_path / "state" / "ffhqref" / "key").stat().st_mode & 0o777) == 0o600
