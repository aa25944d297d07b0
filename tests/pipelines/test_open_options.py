"""Options that no config file lists are keys like any other; wrong ones are told with the nearest right one."""

import importlib.metadata
import sys

import pytest
import yaml

from ffhqref.cli.main import main
from ffhqref.config.overrides import checked
from ffhqref.restorers import RESTORERS, RestorerInfo


class Sharper:
    """A restorer of another package."""

    info = RestorerInfo(name="sharper")

    def __init__(self, amount=0.5, levels=None):
        pass

    def restore(self, batch):
        return batch.lq


@pytest.fixture
def config(tmp_path, monkeypatch, capsys):
    """Return the config that a command line composes, or the line that refuses it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "their_package", sys.modules[Sharper.__module__])
    point = importlib.metadata.EntryPoint("sharper", "their_package:Sharper", "ffhqref.restorers")
    monkeypatch.setattr(RESTORERS, "_plugins", {"sharper": point})

    def compose(*arguments):
        status = main(["run", *arguments, "--cfg", "job"])
        said = capsys.readouterr()
        assert status == (2 if said.err else 0)
        assert said.err.count("\n") <= 1
        return said.err.strip() or yaml.safe_load(said.out)

    return compose


def test_an_option_of_a_plug_in_needs_no_plus(config):
    made = config("restorer=[lq,sharper]", "restorer.sharper.amount=0.8", "restorer.sharper.levels=[1,2]")
    assert made["restorer"] == {"lq": {}, "sharper": {"amount": 0.8, "levels": [1, 2]}}
    made = config("restorer=[lq,sharper]", "+restorer.sharper.amount=0.8")
    assert made["restorer"]["sharper"] == {"amount": 0.8, "levels": None}, "with the defaults of what is not given"


def test_an_option_that_the_file_does_not_list_needs_no_plus(config):
    made = config("restorer=[refldm,nlm]", "restorer.refldm.steps=9", "restorer.nlm.strength=3", "seed=7")
    assert (made["restorer"]["refldm"]["steps"], made["restorer"]["nlm"], made["seed"]) == (9, {"strength": 3}, 7)
    assert config("metric=[psnr]", "metric.psnr.colour=y")["metric"] == {"psnr": {"colour": "y"}}
    theirs = (f"restorer.command.parameters.{words}" for words in ("steps=3", "version=1.10", "fast=true"))
    made = config("restorer=[command]", *theirs)
    assert made["restorer"]["command"]["parameters"] == {"steps": "3", "version": "1.10", "fast": "true"}
    assert config("report.formats=[csv]")["report"]["formats"] == ["csv"]


def test_every_option_of_what_is_chosen_is_shown_with_its_default(config):
    made = config("restorer=[nlm]", "metric=[psnr,ids]", "dataset=ffhq", "embedder=onnx")
    assert made["restorer"] == {"nlm": {"strength": 6.0}}
    assert made["metric"]["psnr"] == {"colour": "rgb"}
    assert made["metric"]["ids"]["crop"] == "${embedder.crop}", "the run's, where it is not given"
    assert {"path", "ages", "attributes", "json"} <= set(made["dataset"])
    assert {"batch_size", "template", "threads"} <= set(made["embedder"])


def test_a_benchmark_can_be_written_on_the_command_line(config):
    written = "{degradation:{sigma:[4,4],scale:[8,8],noise:[0,0],jpeg:[90,90]},split:test}"
    made = config("benchmark=[severe]", f"benchmark.mine={written}")["benchmark"]
    assert list(made) == ["severe", "mine"]
    assert made["mine"]["degradation"]["scale"] == [8, 8]


@pytest.mark.parametrize(
    ("argument", "key", "value"),
    [
        ("root=2024_11_28", "root", "2024_11_28"),
        ("root=1.10", "root", "1.10"),
        ("merge=[2024_11_28,1.10]", "merge", ["2024_11_28", "1.10"]),
        ("weights_dir=/tmp", "weights_dir", "/tmp"),
        ("train.leave_out=[007,p20]", "train.leave_out", ["007", "p20"]),
        ("train.folder=1e3", "train.folder", "1e3"),
        ("dataset.ages=007", "dataset.ages", "007"),
        ("restorer.pgdiff.task=1_0", "restorer.pgdiff.task", "1_0"),
        ("limit=1_0", "limit", 10),
        ("restorer.pgdiff.guidance_scale=1e-1", "restorer.pgdiff.guidance_scale", 0.1),
    ],
)
def test_a_name_that_looks_like_a_number_stays_as_it_is_written(config, argument, key, value):
    made = config("dataset=folder", "restorer=[pgdiff]", argument)
    for name in key.split("."):
        made = made[name]
    assert made == value


def test_a_sweep_takes_such_names_too():
    assert checked(["root=2024_11_28,1.10,b"]) == ["root='2024_11_28','1.10',b"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["restorer=[sharper]", "restorer.sharper.amuont=1"], "'restorer.sharper.amuont'. Did you mean 'amount'?"),
        (["restorer=[refldm]", "restorer.refldm.stesp=1"], "'restorer.refldm.stesp'. Did you mean 'steps'? Its opt"),
        (["restorer=[sharper]", "restorer.sharpe.amount=1"], "unknown key 'restorer.sharpe.amount'."),
        (["restorer=[lq]", "restorer.gfpgan.path=x"], "restorer 'gfpgan' is not chosen; name it too: restorer="),
        (["restorer=[nlm]", "restorer.nlm.strength=2", "sed=1"], "unknown key 'sed'. Did you mean 'seed'?"),
        (["metric=[ids]", "metric.ids.crp=x"], "unknown key 'metric.ids.crp'."),
        (["embedder=onnx", "metric=[ids]", "metric.ids.thraeds=2"], "'metric.ids.thraeds'. Did you mean 'threads'?"),
        (["dataset=folder", "dataset.pth=x"], "unknown key 'dataset.pth'. Did you mean 'path'?"),
        (["synthesis.tris=x"], "unknown key 'synthesis.tris'. Did you mean 'tries'?"),
    ],
)
def test_a_wrong_key_is_one_line_with_the_nearest(config, arguments, words):
    assert words in config(*arguments)
