"""Options that no config file lists are keys like any other; wrong ones are told with the nearest right one."""

import importlib.metadata
import sys

import pytest
import yaml

from ffhqref.cli.main import main
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
    assert config("restorer=[lq,sharper]", "+restorer.sharper.amount=0.8")["restorer"]["sharper"] == {"amount": 0.8}


def test_an_option_that_the_file_does_not_list_needs_no_plus(config):
    made = config("restorer=[refldm,nlm]", "restorer.refldm.steps=9", "restorer.nlm.strength=3", "seed=7")
    assert (made["restorer"]["refldm"]["steps"], made["restorer"]["nlm"], made["seed"]) == (9, {"strength": 3}, 7)
    assert config("metric=[psnr]", "metric.psnr.colour=y")["metric"] == {"psnr": {"colour": "y"}}
    assert config("restorer=[command]", "restorer.command.parameters.steps=3")["restorer"]["command"]["parameters"] == {
        "steps": 3
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["restorer=[sharper]", "restorer.sharper.amuont=1"], "'restorer.sharper.amuont'. Did you mean 'amount'?"),
        (["restorer=[refldm]", "restorer.refldm.stesp=1"], "'restorer.refldm.stesp'. Did you mean 'steps'? Its opt"),
        (["restorer=[sharper]", "restorer.sharpe.amount=1"], "unknown key 'restorer.sharpe.amount'."),
        (["restorer=[lq]", "restorer.gfpgan.path=x"], "restorer 'gfpgan' is not chosen; name it too: restorer="),
        (["restorer=[nlm]", "restorer.nlm.strength=2", "sed=1"], "unknown key 'sed'. Did you mean 'seed'?"),
        (["dataset=folder", "dataset.pth=x"], "unknown key 'dataset.pth'. Did you mean 'dataset.path'?"),
        (["synthesis.tris=x"], "unknown key 'synthesis.tris'. Did you mean 'synthesis.tries'?"),
    ],
)
def test_a_wrong_key_is_one_line_with_the_nearest(config, arguments, words):
    assert words in config(*arguments)
