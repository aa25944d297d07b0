"""How the command restorer groups cases and lays out their files."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from ffhqref.core.images import to_uint8
from ffhqref.restorers.command.restorer import CommandRestorer

from .conftest import SIDE, batch_of, outcome

ECHO = '''
"""Writes down what it was given, and the first image as its output."""
import json, os, shutil, sys
run, out, *rest = sys.argv[1:]
tree = sorted(os.path.relpath(os.path.join(d, f), run) for d, _, fs in os.walk(run) for f in fs)
lists = {name: open(os.path.join(run, name)).read() for name in tree if name.endswith(".txt")}
with open(os.path.join(os.path.dirname(__file__), "told.jsonl"), "a") as log:
    log.write(json.dumps({"rest": rest, "tree": tree, "lists": lists}) + "\\n")
for name in tree:
    if name.startswith("lq/"):
        shutil.copy(os.path.join(run, name), os.path.join(run, out, os.path.basename(name)))
'''


@pytest.fixture
def echo(tmp_path):
    folder = tmp_path / "echo"
    folder.mkdir()
    (folder / "echo.py").write_text(ECHO)

    def run(batch, *arguments, parameters=None, **recipe):
        command = ["{python}", "echo.py", "{run}", "out", *arguments]
        fields = {"lq": "lq/{id}.png", "commands": [command], "output": "out/{id}.png", **recipe}
        fields["info"] = {"input_size": None, "max_references": None if "references" in recipe else 0}
        restorer = CommandRestorer(fields, folder, sys.executable, parameters)
        (folder / "told.jsonl").unlink(missing_ok=True)
        made, reasons = outcome(restorer, batch)
        told = (folder / "told.jsonl").read_text().splitlines() if (folder / "told.jsonl").exists() else []
        return restorer, made, reasons, [json.loads(line) for line in told]

    return run


def strip(*levels):
    return [np.full((SIDE, SIDE, 3), level, np.uint8) for level in levels]


def test_group_run_lays_out_all_cases_and_lists(echo):
    batch = batch_of(3, [strip(1, 2), strip(3), strip()], ages=[30.0, 41.26, 7.0], seeds=[5, 2**62, 7])
    _, made, reasons, told = echo(
        batch, references="refs/{id}/{rank}.png", fill_references=2,
        files={"list.txt": "{lq}\t{references_folder}\t{id} {age:.1f} {seed}"},
    )  # fmt: skip
    assert reasons == {}
    assert np.array_equal(made, to_uint8(batch.lq))
    (call,) = told
    wanted = [f"lq/{n:05d}.png" for n in range(3)] + [f"refs/{n:05d}/{r:02d}.png" for n in (0, 1) for r in (0, 1)]
    assert [name for name in call["tree"] if name.endswith(".png")] == wanted
    rows = [line.split("\t") for line in call["lists"]["list.txt"].splitlines()]
    assert [row[2] for row in rows] == ["00000 30.0 5", "00001 41.3 0", "00002 7.0 7"]
    assert [Path(row[0]).name for row in rows] == ["00000.png", "00001.png", "00002.png"]
    assert [Path(row[1]).name if row[1] else "" for row in rows] == ["00000", "00001", ""]


def test_group_identity_calls_once_for_equal_references(echo):
    batch = batch_of(4, [strip(1, 2), strip(3), strip(1, 2), strip(2, 1)])
    restorer, made, _, told = echo(
        batch, "{references_folder}", "{references}", references="refs/{rank}.png", group="identity"
    )
    assert np.array_equal(made, to_uint8(batch.lq))
    assert restorer.groups_references
    assert [sum(name.startswith("lq/") for name in call["tree"]) for call in told] == [2, 1, 1]
    assert [len(call["rest"]) for call in told] == [3, 2, 3]
    assert [Path(path).name for path in told[0]["rest"]] == ["refs", "00.png", "01.png"]


def test_group_image_calls_for_each_case_with_its_own_seed_and_age(echo):
    batch = batch_of(2, [strip(1), strip(2)], ages=[30.0, 40.0], seeds=[5, 6])
    restorer, _, _, told = echo(
        batch, "{seed}", "{age:.0f}", "{reference}", "{n}", references="refs/{rank}.png", group="image",
        parameters={"n": 50},
    )  # fmt: skip
    assert [call["rest"][:2] for call in told] == [["5", "30"], ["6", "40"]]
    assert told[0]["rest"][3] == "50"
    assert told[0]["rest"][2].endswith("refs/00.png")
    assert restorer.info.uses_seed
    assert restorer.batch_size == 1


def test_a_case_whose_age_is_unknown_fails_alone(echo):
    _, _, reasons, told = echo(batch_of(3, ages=[30.0, None, 31.0]), files={"ages.txt": "{id} {age}"})
    assert reasons == {1: "needs the target's age: dataset.ages"}
    assert len(told[0]["lists"]["ages.txt"].splitlines()) == 2
    _, _, reasons, told = echo(batch_of(2), files={"ages.txt": "{id} {age}"})
    assert len(reasons) == 2
    assert told == []


def test_a_tab_in_a_value_cannot_break_a_list(echo):
    _, _, reasons, told = echo(batch_of(1), files={"list.txt": "{id}\t{word}"}, parameters={"word": "a\tb"})
    assert "'{word}' has a tab" in reasons[0]
    assert told == []


def test_crop_and_unknown_parts_of_names(tmp_path):
    script = tmp_path / "wide.py"
    script.write_text(
        "import sys, cv2, os\nfrom pathlib import Path\nrun = Path(sys.argv[1])\n"
        "out = run / 'out_11-21_10-30'\nout.mkdir()\n"
        "for p in (run / 'lq').iterdir():\n    x = cv2.imread(str(p))\n"
        "    cv2.imwrite(str(out / p.name), cv2.hconcat([x, 255 - x, x // 2]))\n"
    )
    fields = {"lq": "lq/{id}.png", "commands": [["{python}", "wide.py", "{run}"]], "output": "out_*/{id}.png"}
    fields |= {"crop": [2 * SIDE, 0, SIDE, SIDE], "info": {"input_size": None}}
    made, _ = outcome(CommandRestorer(fields, tmp_path, sys.executable), batch_of(2))
    assert np.array_equal(made, to_uint8(batch_of(2).lq) // 2)
    fields["crop"] = [3 * SIDE, 0, SIDE, SIDE]
    _, reasons = outcome(CommandRestorer(fields, tmp_path, sys.executable), batch_of(2))
    assert "192x64 pixels, too few for the crop [192, 0, 64, 64]" in reasons[0]
