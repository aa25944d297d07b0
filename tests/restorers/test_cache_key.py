"""Content keys of restorers are made of contents: places change nothing, a replaced file changes them."""

import shutil
import sys
from pathlib import Path

import pytest

from ffhqref.core.errors import DependencyError
from ffhqref.restorers import RESTORERS, RestorerInfo, make_restorer
from ffhqref.restorers.cache_key import restorer_identity
from ffhqref.restorers.command.checkout import environment_state

from ..zoo.conftest import tiny

SETTINGS = {"pgdiff": {"task": "ref_restoration"}}
"""Options with which a method uses all of its files."""


@pytest.fixture(autouse=True)
def weights_home(tmp_path, monkeypatch):
    monkeypatch.setenv("FFHQREF_WEIGHTS", str(tmp_path / "home"))


def put(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        empty = (2).to_bytes(8, "little") + b"{}" if name.endswith(".safetensors") else b""
        (folder / name).write_bytes(empty + name.encode())


def codeformer(folder):
    put(folder, "codeformer.pth")
    return {"path": folder / "codeformer.pth"}


def faceme(folder):
    networks = [f"base/{part}/diffusion_pytorch_model.safetensors" for part in ("unet", "vae")]
    texts = [f"base/{part}/model.safetensors" for part in ("text_encoder", "text_encoder_2")]
    small = ["base/scheduler/scheduler_config.json", "base/tokenizer/merges.txt"]
    control = "controlnet/diffusion_pytorch_model.safetensors"
    put(folder, *networks, *texts, *small, control, "controlnet/config.json", "mix/mix.safetensors", "photomaker.bin")
    finder = {"name": "aligned", "embedder": "dlib"}
    files = {"photomaker": folder / "photomaker.bin", "faces": finder}
    return {**{name: folder / name for name in ("base", "controlnet", "mix")}, **files}


STAND_INS = {"codeformer": codeformer, "faceme": faceme}
"""Nothing but file names, for methods whose small networks take long to make: nothing is loaded here."""


def identity(name, options):
    return restorer_identity(name, options, make_restorer(name, **{"device": "cpu", **options}))


def moved(value, old, new):
    """Return options whose paths lie in another folder."""
    if isinstance(value, dict):
        return {key: moved(item, old, new) for key, item in value.items()}
    if isinstance(value, list):
        return [moved(item, old, new) for item in value]
    text = str(value)
    return text.replace(str(old), str(new)) if isinstance(value, (str, Path)) and str(old) in text else value


def files_in(value, folder):
    """Return the files of a folder that options name, themselves or by a folder they are in."""
    if isinstance(value, (dict, list)):
        items = value.values() if isinstance(value, dict) else value
        return [file for item in items for file in files_in(item, folder)]
    if not isinstance(value, (str, Path)) or str(folder) not in str(value):
        return []
    return [file for file in [Path(value), *sorted(Path(value).rglob("*"))] if file.is_file()]


@pytest.mark.parametrize(
    "name", sorted(path.stem for path in (Path(__file__).parents[1] / "zoo" / "tiny").glob("*.py"))
)
def test_a_moved_folder_changes_no_key_and_every_replaced_file_does(name, tmp_path):
    assert name in RESTORERS
    first, second = tmp_path / "first", tmp_path / "second" / "deeper"
    first.mkdir()
    make = STAND_INS.get(name, lambda folder: tiny(name).options(folder))
    options = {**make(first), **SETTINGS.get(name, {})}
    try:
        before = identity(name, options)
    except DependencyError as error:
        pytest.skip(str(error))
    shutil.copytree(first, second)
    there = moved(options, first, second)
    assert identity(name, there) == before
    assert str(tmp_path) not in str(before)
    for file in files_in(there, second):
        content = file.read_bytes()
        file.write_bytes(content + b"\n")
        assert identity(name, there) != before, file
        file.write_bytes(content)
        assert identity(name, there) == before, "what was restored with the first file stands again"


class Mine:
    """A restorer of another package, with a file and a folder among its options."""

    info = RestorerInfo(name="mine")
    cache_ignored_options = ("workers",)

    def __init__(self, checkpoint=None, words="plain", workers=1, nested=None, device="cpu"):
        self.device = device

    def restore(self, batch):
        return batch.lq


def mine(**options):
    target = {"_target_": f"{__name__}.Mine", **options}
    return restorer_identity("mine", target, make_restorer("mine", **target))


def test_options_of_a_plug_in_count_by_what_they_hold(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Mine.__module__])
    monkeypatch.chdir(tmp_path)
    one, two = tmp_path / "one.pth", tmp_path / "elsewhere" / "two.pth"
    two.parent.mkdir()
    for file in (one, two):
        file.write_bytes(b"the same weights")
    assert mine(checkpoint=str(one)) == mine(checkpoint=str(two)) == mine(checkpoint="one.pth")
    assert mine(nested={"parts": [str(one)]}) == mine(nested={"parts": [str(two)]})
    two.write_bytes(b"other weights....")
    assert mine(checkpoint=str(one)) != mine(checkpoint=str(two))
    assert mine(nested={"parts": [str(one)]}) != mine(nested={"parts": [str(two)]})
    assert mine(checkpoint="absent.pth") != mine(checkpoint="gone.pth"), "no file: the text itself counts"
    assert mine(device="cuda", workers=8) == mine(device="cpu", workers=1), "neither changes a result"

    # words that name no file count as they are, even where files of those names hold the same
    for word in ("plain", "fancy"):
        (tmp_path / word).write_bytes(b"")
    assert mine(words="plain") != mine(words="fancy")
    assert mine(words="x" * 5000 + "/y") != mine(words="x" * 5000 + "/z")


def test_a_weight_file_of_another_name_is_the_same(tmp_path):
    options = tiny("refldm").options(tmp_path)
    before = identity("refldm", options)
    renamed = options["refldm_ckpt"].rename(tmp_path / "mine.ckpt")
    assert identity("refldm", {**options, "refldm_ckpt": renamed}) == before


def test_an_environment_is_told_by_its_packages_wherever_it_lies(tmp_path):
    put(tmp_path / "one", "bin/python", "lib/python3.11/site-packages/torch-2.1.dist-info/METADATA")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    one, two = (environment_state(str(tmp_path / name / "bin" / "python")) for name in ("one", "two"))
    assert one == two == ["python3.11/torch-2.1.dist-info"]
    put(tmp_path / "two", "lib/python3.11/site-packages/numpy-2.0.dist-info/METADATA")
    assert environment_state(str(tmp_path / "two" / "bin" / "python")) != one
    put(tmp_path / "wrapper", "run.sh")
    script = str(tmp_path / "wrapper" / "run.sh")
    assert environment_state(script) == [script], "nothing is known of it but its name"
    assert environment_state(None) is None
