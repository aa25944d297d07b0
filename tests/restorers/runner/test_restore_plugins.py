"""Restorers of other packages: what starts, what does not, entry points, devices."""

import subprocess
import sys
import textwrap

import pytest

from ffhqref.core.errors import ConfigError
from ffhqref.restorers import RESTORERS
from ffhqref.restorers.runner import RestoreStage

from .conftest import typed
from .plugins import Broken, Plugin, target


def test_device_reaches_restorers_that_take_one(tmp_path):
    assert RestoreStage(tmp_path, "mine", target(Plugin), device="cuda:1").restorer.device == "cuda:1"
    own = RestoreStage(tmp_path, "mine", {**target(Plugin), "device": "cpu"}, device="cuda:1")
    assert own.restorer.device == "cpu", "a device of its own wins"
    row = {"benchmark": "b", "case_id": "c", "lq_path": "x", "lq_sha256": None, "reference_paths": []}
    row |= {"reference_sha256": [], "seed": 1, "age": None, "out_path": "y"}
    assert own.process(typed([row]))[0].device == "cpu"
    assert RestoreStage(tmp_path, "bicubic", device="cuda:1").process(typed([row]))[0].device == "cpu", (
        "it knows no GPU"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"_target_": "nowhere.to.be.Found"}, "no module 'nowhere'"),
        ({"_target_": "ffhqref.core.images.nothing"}, "has no 'nothing'"),
        ({"_target_": "pathlib.Path"}, "is no restorer"),
        (target(Broken), "restorer 'mine' does not start: OSError: no weights here"),
        ({**target(Plugin), "wrong": 1}, "^restorer 'mine': unknown option 'wrong'. Its options: device$"),
    ],
)
def test_what_cannot_start_is_one_line_before_any_work(tmp_path, options, words):
    with pytest.raises(ConfigError, match=words) as caught:
        RestoreStage(tmp_path, "mine", options)
    assert "\n" not in str(caught.value)


@pytest.fixture
def plugin_package(tmp_path):
    """A package of its own with an entry point, as pip would lay it down."""
    site = tmp_path / "site"
    (site / "their_package").mkdir(parents=True)
    (site / "their_package" / "__init__.py").write_text(
        textwrap.dedent(
            """
            from ffhqref.restorers import RestorerInfo

            class Darker:
                info = RestorerInfo(name="darker", summary="half as bright")

                def __init__(self, by=0.5):
                    self.by = by

                def restore(self, batch):
                    return batch.lq * self.by
            """
        )
    )
    facts = site / "their_package-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: their-package\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(
        "[ffhqref.restorers]\ndarker = their_package:Darker\nabsent = their_package:Nothing\n"
    )
    return site


def test_a_restorer_of_another_package_appears_by_its_entry_point(tmp_path, rows, plugin_package):
    code = textwrap.dedent(
        f"""
        import sys, numpy as np
        sys.path.insert(0, {str(plugin_package)!r})
        if __name__ == "__main__":
            from ffhqref.core.errors import ConfigError
            from ffhqref.core.images import read_rgb
            from ffhqref.restorers import RESTORERS, make_restorer
            from ffhqref.restorers.check import check_restorer
            from ffhqref.restorers.runner import RestoreRow, RestoreStage
            assert "their_package" not in sys.modules
            assert RESTORERS.plugin_names() == ["absent", "darker"], RESTORERS.plugin_names()
            assert check_restorer(make_restorer("darker"), size=32) == []
            stage = RestoreStage({str(tmp_path)!r}, "darker", {{"by": 0.25}})
            result = stage.process([RestoreRow(**{rows[0]!r})])[0]
            assert result.status == "ok", result
            made, low = (read_rgb({str(tmp_path)!r} + "/" + name) for name in ("out/0.png", "lq/0.png"))
            assert np.abs(made - low * 0.25).max() <= 0.51
            try:
                make_restorer("absent")
            except ConfigError as error:
                assert "their_package:Nothing" in str(error) and "does not import" in str(error), error
            else:
                raise AssertionError("a plug-in without its class")
        """
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "darker" not in RESTORERS
