"""The shipped recipes and composed restorers, from the config to the outputs.

The methods' own code and weights are not here. Stand-ins take the place of their scripts: they accept just the options
that the published scripts have, read inputs where those read them, and write outputs where those write them.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import sys
import textwrap

import cv2
import numpy as np
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from ffhqref.config import source
from ffhqref.core.errors import ConfigError, WeightsError
from ffhqref.core.images import read_rgb, to_tensor, to_uint8
from ffhqref.restorers import PartialResult, RestorationBatch, make_restorer
from ffhqref.restorers.command.recipe import Recipe
from ffhqref.store.tables import read_metadata

from ..command import REPOSITORY
from .test_cli import one_line

CONF = REPOSITORY / "conf"

FOLDER_TO_FOLDER = """
    import sys, argparse
    from pathlib import Path
    import cv2
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for name in {strings!r}:
        parser.add_argument("--" + name, required=True)
    for name in {flags!r}:
        parser.add_argument("--" + name, action="store_true")
    args = parser.parse_args()
    Path(args.output).mkdir(exist_ok=True)
    for path in sorted(Path(args.input).iterdir()):
        picture = cv2.imread(str(path))
        {extra}
        cv2.imwrite(str(Path(args.output) / path.name), 255 - picture)
    (Path(args.output) / "prompt.csv").write_text("file_name")
"""

DIFFBIR = (
    "task upscale version sampler steps captioner pos_prompt neg_prompt cfg_scale seed input output device precision"
)
MEINTIME = "upscale sampler dds_steps steps cfg_scale trg_prompt_list input ref output seed device precision"


def folder_to_folder(strings, flags="", extra="pass"):
    text = textwrap.dedent(FOLDER_TO_FOLDER)
    return text.format(strings=strings.split(), flags=flags.split(), extra=extra)


MIX = "other = cv2.imread(str(min((Path(args.ref) / path.stem).iterdir()))); picture = picture // 2 + other // 2"

PRINTS_AGES = "print(open(args.trg_prompt_list).read(), file=open('prompts_seen.txt', 'w')); "

INTERLCM = """
import argparse
from pathlib import Path
import cv2
parser = argparse.ArgumentParser(allow_abbrev=False)
for name in ("visual_encoder_path", "spatial_encoder_path", "sd_path", "lcm_path", "colorfix_type", "input_path",
             "output_path"):
    parser.add_argument("--" + name, required=True)
parser.add_argument("--num_inference_steps", type=int, required=True)
parser.add_argument("--has_aligned", action="store_true", required=True)
args = parser.parse_args()
assert Path(args.visual_encoder_path).is_file() and Path(args.spatial_encoder_path).is_file()
first = args.output_path.split("/")[0]
output = args.output_path.replace(first, f"{first}[{args.colorfix_type}]/Step{args.num_inference_steps}")
folder = Path(output) / "restored_faces"
folder.mkdir(parents=True)
for path in Path(args.input_path).iterdir():
    cv2.imwrite(str(folder / (path.stem + ".png")), 255 - cv2.imread(str(path)))
"""

REFINEFIR = """
import argparse
from pathlib import Path
import cv2
parser = argparse.ArgumentParser(allow_abbrev=False)
for name in ("input", "reference", "checkpoint", "id-weight", "output"):
    parser.add_argument("--" + name, required=True)
parser.add_argument("--size", type=int, default=256)
parser.add_argument("--device", default="cuda")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--skip-degrade", action="store_true", required=True)
args = parser.parse_args()
assert Path(args.checkpoint).is_file() and Path(args.id_weight).is_file()
mixed = cv2.imread(args.input) // 2 + cv2.imread(args.reference) // 2
Path(args.output).parent.mkdir(exist_ok=True)
cv2.imwrite(args.output, cv2.resize(mixed, (args.size, args.size), interpolation=cv2.INTER_AREA))
"""

SCRIPTS = {
    "diffbir": {"inference.py": folder_to_folder(DIFFBIR)},
    "interlcm": {"inference_InterLCM.py": INTERLCM},
    "refinefir": {"infer_mediapipe.py": REFINEFIR},
    "meintime": {"inference.py": folder_to_folder(MEINTIME, "age_guidance", extra=PRINTS_AGES + MIX)},
}
"""Restorer to the scripts of its checkout."""


def stand_in(name):
    """A weight file without weights; one of safetensors is whole."""
    header = b'{"__metadata__":{"name":"%s"}}' % name.encode()
    return len(header).to_bytes(8, "little") + header if name.endswith(".safetensors") else name.encode()


def settings(*overrides):
    source.register([])
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return OmegaConf.to_container(compose("config", list(overrides)), resolve=True)["restorer"]


def test_every_shipped_recipe_has_a_stand_in():
    shipped = [path.stem for path in CONF.glob("restorer/*.yaml") if "name: command" in path.read_text()]
    assert sorted(shipped) == sorted(SCRIPTS)
    for name in shipped:
        text = (CONF / "restorer" / f"{name}.yaml").read_text()
        assert "Not tried here" in text
        assert "not run with its weights" in text


@pytest.fixture
def checkout(tmp_path):
    def make(name):
        options = settings(f"restorer=[{name}]")[name]
        for relative, text in SCRIPTS[name].items():
            script = tmp_path / relative
            script.parent.mkdir(parents=True, exist_ok=True)
            script.write_text(text)
        watched = tmp_path / options["recipe"]["watch"][0].replace("**/", "").replace("*", "code")
        watched.parent.mkdir(parents=True, exist_ok=True)
        watched.touch()
        for weights in options["recipe"]["weights"]:
            path = tmp_path / weights.format(**(options.get("parameters") or {}))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(stand_in(path.name))
        assert options.pop("name") == "command"
        return {**options, "checkout": str(tmp_path), "python": sys.executable}

    return make


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_recipe_feeds_its_program_and_finds_its_outputs(name, checkout, tmp_path, sample_folder):
    faces = [read_rgb(path, 512) for path in sorted(sample_folder.rglob("*.jpg"))[:6]]
    restorer = make_restorer("command", **checkout(name))
    info = restorer.info
    assert info.name == name
    assert info.summary
    assert info.licence
    assert info.paper
    assert info.weights
    shown = 0 if info.max_references == 0 else info.min_references or 1
    batch = RestorationBatch(
        lq=to_tensor(faces[:2]),
        references=[to_tensor(faces[2 + 2 * i :][:shown]) if shown else torch.zeros(0, 3, 512, 512) for i in range(2)],
        seeds=[1, 2], case_ids=["a", "b"], ages=[30.4, 61.0],
    )  # fmt: skip
    made = restorer.restore(batch)
    assert not isinstance(made, PartialResult), made.reasons
    for index, picture in enumerate(to_uint8(made)):
        if shown:
            mixed = faces[index] // 2 + faces[2 + 2 * index] // 2
            if name == "refinefir":
                small = cv2.resize(mixed, (256, 256), interpolation=cv2.INTER_AREA)
                mixed = cv2.resize(small, (512, 512), interpolation=cv2.INTER_CUBIC)
            assert np.array_equal(picture, mixed if name != "meintime" else 255 - mixed)
        else:
            assert np.array_equal(picture, 255 - faces[index])
    if name == "meintime":
        assert (tmp_path / "prompts_seen.txt").read_text().split("\n")[:2] == [
            "00000\tphoto of a 30 years old person", "00001\tphoto of a 61 years old person",
        ]  # fmt: skip


def test_recipe_of_the_docs_is_one():
    text = (REPOSITORY / "docs" / "restorers.md").read_text(encoding="utf-8")
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    assert Recipe.of(blocks[0], ["steps"]).info.max_references == 5
    assert blocks[1]["mine"]["name"] == "chain"
    fields = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE))))
    assert {item.name for item in dataclasses.fields(Recipe)} <= fields, "every field has its line"


def test_recipes_are_on_the_zoo_page(ffhqref):
    done = ffhqref("zoo", "lq", "diffbir", "meintime", "--markdown", "zoo.md")
    assert done.returncode == 0, done.stderr
    facts, _, _ = (ffhqref.folder / "zoo.md").read_text().partition("\n\n")  # the table of costs follows
    rows = {line.split(" | ")[0]: line for line in facts.splitlines()}
    assert "†" in rows["| diffbir"]
    assert "not run with its weights" in rows["| diffbir"]
    assert "1 or more" in rows["| meintime"]
    assert "†" not in rows["| lq"]


def test_missing_weights_are_told_with_their_source(checkout, tmp_path):
    options = checkout("diffbir")
    (tmp_path / "weights" / "v2.pth").unlink()
    with pytest.raises(WeightsError, match=r"no weight file .*v2.pth: it comes from https://huggingface.co/lxq007"):
        make_restorer("command", **options)


def test_a_recipe_without_its_checkout_ends_the_run_at_once(ffhqref):
    line = one_line(ffhqref("restore", "restorer=[lq,diffbir]"))
    assert "'diffbir' needs the" in line
    assert "PATH" in line
    for name, words in (("command", "needs a recipe"), ("tiled", "of names no restorer"), ("chain", "steps=")):
        with pytest.raises(ConfigError, match=words):
            make_restorer(name, **settings(f"restorer=[{name}]")[name])


def test_the_same_composite_under_several_names(ffhqref):
    mine = "+restorer.mine={name: chain, steps: [nlm, {name: bicubic, factor: 2}]}"
    other = "+restorer.other={name: chain, steps: [tv, bicubic]}"
    transfer = "restorer.colour_transfer.of={name: chain, steps: [bicubic, tv]}"
    done = ffhqref("restore", "dry_run=true", "restorer=[colour_transfer]", transfer, mine, other)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["colour_transfer: ok", "mine: ok", "other: ok"]
    chosen = settings("restorer=[lq]", mine, other)
    assert [make_restorer(**chosen[name]).info.summary for name in ("mine", "other")] == [
        "nlm, then bicubic", "tv, then bicubic",
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="unknown restorer 'nlmm'"):
        make_restorer(**settings("restorer=[lq]", "+restorer.mine={name: chain, steps: [nlmm]}")["mine"])


@pytest.mark.slow
def test_a_program_and_a_composite_from_the_command_line(ffhqref, built, tmp_path):
    import pandas as pd

    code = tmp_path / "code"
    code.mkdir()
    (code / "blur.py").write_text(
        "import sys, cv2\nfrom pathlib import Path\nrun = Path(sys.argv[1])\n"
        "for path in sorted((run / 'in').iterdir())[1:]:\n"
        "    cv2.imwrite(str(run / 'out' / path.name), cv2.GaussianBlur(cv2.imread(str(path)), (0, 0), 2))\n"
    )
    (tmp_path / "recipe.yaml").write_text(
        "lq: in/{id}.png\noutput: out/{id}.png\ncommands: [['{python}', blur.py, '{run}']]\n"
        "info: {name: blur, trained_on: [FFHQ]}\n"
    )
    shutil.copytree(built, ffhqref.folder / "w")
    assert ffhqref("degrade", "root=w", "benchmark=[moderate]").returncode == 0
    done = ffhqref(
        "restore", "root=w", "restorer=[lq,chain]", "restorer.chain.steps=[lq,{name: bicubic, factor: 2}]",
        f"+restorer.blur={{name: command, recipe: {tmp_path}/recipe.yaml, checkout: {code}, python: {sys.executable}}}",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "blur: 1 of" in done.stderr + done.stdout
    table = pd.read_parquet(ffhqref.folder / "w" / "tables" / "restorations.parquet").set_index("method")
    assert table.loc["blur"]["status"].tolist() == ["failed", *["ok"] * (len(table.loc["blur"]) - 1)]
    assert table.loc["blur"]["error"].iloc[0] == "wrote no out/00000.png"
    assert (table.loc["chain"]["status"] == "ok").all()
    made, low = table.loc["blur"].iloc[1], table.loc["lq"].iloc[1]
    wanted = cv2.GaussianBlur(cv2.imread(str(ffhqref.folder / "w" / low["output_path"])), (0, 0), 2)
    assert np.array_equal(cv2.imread(str(ffhqref.folder / "w" / made["output_path"])), wanted)
    infos = read_metadata(ffhqref.folder / "w", "restorations")["infos"]
    assert infos["blur"]["trained_on"] == ["FFHQ"]
    assert infos["chain"]["summary"] == "lq, then bicubic"
