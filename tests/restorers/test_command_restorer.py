"""The command restorer with a real program: an OpenCV script, run by an interpreter of another environment."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ffhqref.engine import LocalEngine, run_stage
from ffhqref.errors import ConfigError, WeightsError
from ffhqref.hashing import sha256_file
from ffhqref.images import read_rgb, save_png, to_tensor, to_uint8
from ffhqref.restorers import PartialResult, RestorationBatch
from ffhqref.restorers.command.outputs import swapped
from ffhqref.restorers.command.program import last_words
from ffhqref.restorers.command.recipe import Recipe
from ffhqref.restorers.command.restorer import CommandRestorer
from ffhqref.restorers.stage import RestoreStage

SIDE = 64

PROGRAM = '''
"""A published method's script, as they are: reads a folder, writes a folder, prints, and has its weak spots."""
import argparse, json, os, signal, subprocess, sys, time
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("--input", type=Path)
parser.add_argument("--output", type=Path)
args = parser.parse_args()

here = Path(__file__).parent
with open(here / "calls.txt", "a") as log:
    log.write(" ".join(sorted(path.stem for path in args.input.iterdir())) + "\\n")
(here / "seen.json").write_text(json.dumps({"env": dict(os.environ), "cwd": os.getcwd(), "prefix": sys.prefix}))
faults = json.loads((here / "faults.json").read_text())
print("loading weights")
if faults.get("start"):
    sys.exit("RuntimeError: no CUDA GPUs are available")

import cv2

paths = sorted(args.input.iterdir())
made = {}
for path in paths:
    picture = cv2.imread(str(path))
    fault = faults.get(str(picture[0, 0, 0]))
    print("restoring", path.name, flush=True)
    target = args.output / path.name
    if fault == "crash":
        print("\\r 10%|#         | 1/9", end="\\r", file=sys.stderr)
        raise ValueError(f"cannot find a face in {path}")
    if fault == "status":
        os._exit(3)
    if fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "hang":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        (here / "pids.txt").write_text(f"{os.getpid()} {child.pid}")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    if fault == "skip":
        print(f"No face in {path.name}, continue", file=sys.stderr)
        continue
    restored = cv2.bilateralFilter(picture, 5, 20, 5)
    if fault == "same":
        restored = picture
    if fault == "small":
        restored = cv2.resize(restored, (32, 32))
    if fault == "text":
        target.write_text("no picture")
    elif fault == "half":
        data = cv2.imencode(".png", restored)[1].tobytes()
        target.write_bytes(data[: len(data) // 2])
    elif fault == "link":
        os.symlink("/etc/hostname", target)
    elif fault == "directory":
        target.mkdir()
    else:
        made[target] = restored
        if fault == "extra":
            made[args.output / "00077.png"] = restored
names = list(made)
if faults.get("swap") and len(names) > 2:
    names[0], names[1], names[2] = names[1], names[2], names[0]
if faults.get("one off"):
    names = [path.with_name(f"{int(path.stem) + 1:05d}.png") for path in names]
for name, picture in zip(names, made.values()):
    cv2.imwrite(str(name), picture)
'''


@pytest.fixture(scope="module")
def interpreter(tmp_path_factory):
    """An environment of its own, with OpenCV and none of ffhqref."""
    folder = tmp_path_factory.mktemp("env")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    libraries = {str(Path(importlib.util.find_spec(name).origin).parents[1]) for name in ("cv2", "numpy")}
    (site,) = (folder / "lib").glob("python*/site-packages")
    (site / "libraries.pth").write_text("\n".join(sorted(libraries)))
    return folder / "bin" / "python"


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "their code; $(touch never) 'and' more"
    folder.mkdir()
    (folder / "main.py").write_text(PROGRAM)
    faults(folder)
    return folder


def faults(checkout, **by_case):
    """Set what goes wrong: ``case_2="crash"`` with the case whose corner is 2, other words with the whole program."""
    (checkout / "faults.json").write_text(json.dumps({k.removeprefix("case_"): v for k, v in by_case.items()}))
    (checkout / "calls.txt").unlink(missing_ok=True)


def calls(checkout):
    path = checkout / "calls.txt"
    return [len(line.split()) for line in path.read_text().splitlines()] if path.exists() else []


RECIPE = {
    "lq": "input/{id}.png",
    "commands": [["{python}", "main.py", "--input", "{run}/input", "--output", "{run}/output"]],
    "output": "output/{id}.png",
    "info": {"name": "theirs", "input_size": None, "summary": "bilateral filter"},
}


def pictures(count, side=SIDE):
    """Return pictures that differ, each with its number in a corner."""
    made = []
    for number in range(count):
        rng = np.random.default_rng(number)
        picture = cv2.resize(rng.integers(30, 220, (8, 8, 3), dtype=np.uint8), (side, side))
        picture = np.clip(picture + rng.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)
        picture[0, 0] = number
        made.append(picture)
    return made


def batch_of(count, references=(), ages=None, seeds=None):
    shown = [to_tensor(list(strip)) if len(strip) else torch.zeros(0, 3, SIDE, SIDE) for strip in references]
    return RestorationBatch(
        lq=to_tensor(pictures(count)),
        references=shown or [torch.zeros(0, 3, SIDE, SIDE)] * count,
        seeds=seeds or list(range(count)),
        case_ids=[str(number) for number in range(count)],
        ages=ages,
    )


@pytest.fixture
def theirs(checkout, interpreter, tmp_path):
    (tmp_path / "scratch").mkdir()

    def make(python=interpreter, folder=checkout, **options):
        recipe = {**RECIPE, **options.pop("recipe", {})}
        return CommandRestorer(recipe, folder, str(python), scratch=tmp_path / "scratch", **options)

    return make


def outcome(restorer, batch):
    """Return the 8-bit pictures and the reasons."""
    made = restorer.restore(batch)
    if isinstance(made, PartialResult):
        return to_uint8(made.pictures), dict(made.reasons)
    return to_uint8(made), {}


def expected(count):
    return [cv2.bilateralFilter(one[..., ::-1], 5, 20, 5)[..., ::-1] for one in pictures(count)]


def all_but(made, failed):
    for number, picture in enumerate(expected(len(made))):
        assert number in failed or np.array_equal(made[number], picture), number


def scratch_is_empty(tmp_path):
    return not list((tmp_path / "scratch").iterdir())


def test_one_call_restores_all_cases_exactly(theirs, checkout, tmp_path):
    made, reasons = outcome(theirs(), batch_of(5))
    assert reasons == {} and calls(checkout) == [5]
    all_but(made, set())
    assert scratch_is_empty(tmp_path)


def test_program_has_its_own_environment_and_no_shell(theirs, checkout, interpreter, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/somewhere/of/ours")
    monkeypatch.setenv("VIRTUAL_ENV", "/somewhere/of/ours")
    outcome(theirs(recipe={"env": {"MODE": "{steps} in {checkout}"}}, parameters={"steps": 7}), batch_of(1))
    seen = json.loads((checkout / "seen.json").read_text())
    assert seen["prefix"] == str(interpreter.parents[1]) != sys.prefix
    assert seen["cwd"] == str(checkout)
    assert not {"PYTHONPATH", "VIRTUAL_ENV"} & seen["env"].keys()
    assert seen["env"]["MODE"] == f"7 in {checkout}"
    assert seen["env"]["PATH"].split(os.pathsep)[0] == str(interpreter.parent)
    assert not (checkout / "never").exists()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("crash", "main.py ended with status 1: ValueError: cannot find a face in {run}/input/00000.png"),
        ("status", "main.py ended with status 3: restoring 00000.png"),
        ("kill", "main.py was ended by signal 9 (SIGKILL): restoring 00000.png"),
    ],
)
def test_a_crash_takes_no_neighbour_along(theirs, checkout, tmp_path, fault, words):
    faults(checkout, case_2=fault)
    made, reasons = outcome(theirs(), batch_of(6 if fault == "crash" else 3))
    assert reasons == {2: words}
    all_but(made, {2})
    assert calls(checkout) == ([6, 3, 1, 2, 1, 1, 3] if fault == "crash" else [3, 1, 2, 1, 1]), "halves, down to one"
    assert scratch_is_empty(tmp_path)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("skip", "wrote no output/00002.png; its last line: No face in 00002.png, continue"),
        ("small", "wrote output/00002.png with 32x32 pixels, expected 64x64"),
        ("text", "wrote what cannot be used: not a picture: output/00002.png"),
        ("half", "wrote what cannot be used: cannot be read"),
        ("link", "wrote output/00002.png as a link that leaves the folder of the call"),
        ("directory", "wrote no output/00002.png"),
    ],
)
def test_a_bad_output_after_a_good_end_is_told_and_not_tried_again(theirs, checkout, fault, words):
    faults(checkout, case_2=fault)
    made, reasons = outcome(theirs(), batch_of(4))
    assert list(reasons) == [2] and reasons[2].startswith(words), reasons
    all_but(made, {2})
    assert calls(checkout) == [4]


def test_names_of_no_case_make_a_call_suspect(theirs, checkout):
    faults(checkout, case_2="extra")
    made, reasons = outcome(theirs(), batch_of(4))
    assert list(reasons) == [2] and "wrote output/00077.png, which belongs to no case" in reasons[2]
    all_but(made, {2})

    faults(checkout, **{"one off": True})  # every output under its neighbour's name
    _, reasons = outcome(theirs(), batch_of(2))
    assert len(reasons) == 2 and all("names cannot be trusted" in reason for reason in reasons.values())


def test_swapped_outputs_are_found_and_made_again_one_by_one(theirs, checkout):
    faults(checkout, swap=True)
    made, reasons = outcome(theirs(), batch_of(4))
    assert reasons == {} and calls(checkout) == [4, 1, 2, 2]
    all_but(made, set())


def test_a_method_that_makes_other_faces_of_faces_is_not_taken_for_swapping(theirs, checkout):
    for number, other in enumerate(pictures(3)[1:] + pictures(1)):
        other[0, 0] = number
        cv2.imwrite(str(checkout / f"{number}.png"), other[..., ::-1])
    program = PROGRAM.replace(
        "restored = cv2.bilateralFilter", 'restored = cv2.imread(f"{here}/{picture[0, 0, 0]}.png") #'
    )
    (checkout / "main.py").write_text(program)
    made, reasons = outcome(theirs(), batch_of(3))
    assert reasons == {} and calls(checkout) == [3, 1]
    assert [picture[0, 0, 0] for picture in made] == [0, 1, 2]


def test_swaps_are_told_from_what_degradation_and_restoration_do(sample_folder):
    from ffhqref.degradation import apply, draw
    from ffhqref.restorers import make_restorer

    faces = [read_rgb(path, 512) for path in sorted(sample_folder.rglob("*.jpg"))[::23]]
    lows = [apply(face, draw("severe", 1, str(index))) for index, face in enumerate(faces)]
    restored = list(to_uint8(make_restorer("bicubic").restore(RestorationBatch(to_tensor(lows), [], []))))
    for outputs in (restored, faces):  # a weak method and a perfect one
        assert swapped(outputs, lows) == {}
        assert swapped([outputs[1], outputs[0], *outputs[2:]], lows) == {0: 1, 1: 0}
        shifted = {index: (index + 1) % len(lows) for index in range(len(lows))}
        assert swapped([*outputs[1:], outputs[0]], lows) == shifted
    assert swapped(faces[:1] * 2, [lows[0], apply(faces[0], draw("moderate", 1, "x"))]) == {}, "two of one picture"
    grey = [np.full((64, 64, 3), level, np.uint8) for level in (9, 99)]
    assert swapped(grey, grey[::-1]) == {}, "nothing can be told of pictures of one colour"


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def gone(checkout, seconds=10.0):
    pids = [int(pid) for pid in (checkout / "pids.txt").read_text().split()]
    assert len(pids) == 2
    end = time.monotonic() + seconds
    while any(alive(pid) for pid in pids) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(alive(pid) for pid in pids)


def test_time_limit_ends_the_program_and_its_children(theirs, checkout, tmp_path):
    faults(checkout, case_0="hang")
    restorer = theirs(recipe={"start_seconds": 1.5, "case_seconds": 0.5})
    _, reasons = outcome(restorer, batch_of(1))
    assert reasons == {0: "main.py took longer than 2 s and was ended: restoring 00000.png"}
    assert gone(checkout)
    assert scratch_is_empty(tmp_path)


def interrupted(checkout, how, code):
    """Run a program of ours until theirs hangs, send it a signal, and return what it said."""
    ours = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 60
        while not (checkout / "pids.txt").exists() and time.monotonic() < end and ours.poll() is None:
            time.sleep(0.05)
        ours.send_signal(how)
        return ours.communicate(timeout=30)[1]
    finally:
        ours.kill()


def test_ctrl_c_ends_the_program_and_leaves_nothing(checkout, interpreter, tmp_path):
    faults(checkout, case_0="hang")
    code = f"""
        import torch
        from ffhqref.restorers import RestorationBatch
        from ffhqref.restorers.command.restorer import CommandRestorer
        restorer = CommandRestorer({RECIPE!r}, {str(checkout)!r}, {str(interpreter)!r}, scratch={str(tmp_path)!r})
        restorer.restore(RestorationBatch(torch.zeros(1, 3, 8, 8), [torch.zeros(0, 3, 8, 8)], [1], ["a"]))
        """
    assert "KeyboardInterrupt" in interrupted(checkout, signal.SIGINT, code)
    assert gone(checkout) and not list(tmp_path.glob("ffhqref-*"))


def test_no_program_outlives_a_killed_run(checkout, interpreter, tmp_path):
    faults(checkout, case_0="hang")
    (tmp_path / "input").mkdir()
    cv2.imwrite(str(tmp_path / "input" / "a.png"), np.zeros((8, 8, 3), np.uint8))
    command = [str(interpreter), "main.py", "--input", str(tmp_path / "input"), "--output", str(tmp_path)]
    code = f"""
        from pathlib import Path
        from ffhqref.restorers.command.program import Clock, environment, run_program
        run_program({command!r}, cwd=Path({str(checkout)!r}), env=environment(None, {{}}), logs=Path({str(tmp_path)!r}),
                    clock=Clock(600))
        """
    interrupted(checkout, signal.SIGKILL, code)
    assert gone(checkout)


def test_what_never_works_is_given_up_soon(theirs, checkout):
    faults(checkout, start=True)
    _, reasons = outcome(theirs(), batch_of(40))
    assert len(reasons) == 40 and len(calls(checkout)) < 20
    told = "main.py ended with status 1: RuntimeError: no CUDA GPUs are available"
    assert all(reason.startswith(told) for reason in reasons.values())
    assert sum("not tried alone" in reason for reason in reasons.values()) >= 30


def test_a_good_case_among_many_bad_ones_is_found(theirs, checkout):
    faults(checkout, **{f"case_{number}": "crash" for number in range(6) if number != 5})
    made, reasons = outcome(theirs(), batch_of(6))
    assert sorted(reasons) == list(range(5))
    all_but(made, set(range(5)))


def test_logs_of_failed_calls_can_be_kept(theirs, checkout, tmp_path):
    faults(checkout, case_0="skip")
    _, reasons = outcome(theirs(keep=True), batch_of(2))
    (folder,) = (tmp_path / "scratch").iterdir()
    assert str(folder) in reasons[0] and "No face" in (folder / "logs" / "stderr.txt").read_text()
    assert (folder / "run" / "input" / "00000.png").is_file()


# how inputs are grouped and laid out

ECHO = '''
"""Writes down what it was given, and the first picture as its output."""
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
    assert reasons == {} and np.array_equal(made, to_uint8(batch.lq))
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
    assert np.array_equal(made, to_uint8(batch.lq)) and restorer.groups_references
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
    assert told[0]["rest"][3] == "50" and told[0]["rest"][2].endswith("refs/00.png")
    assert restorer.info.uses_seed and restorer.batch_size == 1


def test_a_case_whose_age_is_unknown_fails_alone(echo):
    _, _, reasons, told = echo(batch_of(3, ages=[30.0, None, 31.0]), files={"ages.txt": "{id} {age}"})
    assert reasons == {1: "needs the target's age: dataset.ages"}
    assert len(told[0]["lists"]["ages.txt"].splitlines()) == 2
    _, _, reasons, told = echo(batch_of(2), files={"ages.txt": "{id} {age}"})
    assert len(reasons) == 2 and told == []


def test_a_tab_in_a_value_cannot_break_a_list(echo):
    with pytest.raises(ConfigError, match=r"'{word}' has a tab"):
        echo(batch_of(1), files={"list.txt": "{id}\t{word}"}, parameters={"word": "a\tb"})


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


# what must be right before any work starts


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"comands": []}, "no field 'comands'. Did you mean 'commands'"),
        ({"commands": None}, "the field 'commands' is missing"),
        ({"commands": ["python main.py"]}, "expected a list of lists"),
        ({"commands": [["{python}", "main.py", "{lq}"]]}, "'{lq}' is of one case, which a call of group=image"),
        ({"commands": [["{python}", "main.py", "{imput}"]]}, "no placeholder '{imput}'"),
        ({"commands": [["{python.x}", "main.py"]]}, "no placeholder '{python.x}'"),
        ({"commands": [["{python!r}", "main.py"]]}, "no placeholder '{python!}'"),
        ({"commands": [["{python:>9}", "main.py"]]}, "only {age} takes a format"),
        ({"commands": [["{python", "main.py"]]}, "a brace that is meant is written twice"),
        ({"commands": [["nonesuch-program"]]}, "no program 'nonesuch-program'"),
        ({"commands": [["{python}", "inferense.py"]]}, "no file .*inferense.py, which it runs"),
        ({"lq": "/tmp/{id}.png"}, "must be a path below the folder"),
        ({"lq": "../{id}.png"}, "must be a path below the folder"),
        ({"lq": "input.png"}, "needs {id}, or several pictures would have one name"),
        ({"output": "../../{id}.png"}, "must be a path below the folder"),
        ({"output": "{run}/{id}.png"}, "may have {id}, not '{run}'"),
        ({"files": {"../list.txt": "{lq}"}}, "must be a path below the folder"),
        ({"files": {"list.txt": "{reference}"}}, "the field 'references' is missing"),
        ({"group": "images"}, "group=images. Did you mean 'image'"),
        ({"case_seconds": 0}, "expected a number of seconds above 0"),
        ({"crop": [0, 0, 0, 5]}, "expected left, top, width and height"),
        ({"info": {"licens": "MIT"}}, "info has no 'licens'. Did you mean 'licence'"),
        ({"info": {"max_references": 3}}, "no field 'references' says where they are written"),
    ],
)
def test_a_wrong_recipe_is_one_line(theirs, checkout, changes, words):
    with pytest.raises(ConfigError, match=words.replace("{", r"\{").replace("[", r"\[")) as caught:
        theirs(recipe=changes)
    assert "\n" not in str(caught.value) and calls(checkout) == []


def test_missing_folders_programs_and_weights_are_one_line(theirs, checkout, tmp_path):
    with pytest.raises(ConfigError, match=r"checkout=.*nowhere: no such folder"):
        theirs(folder=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"python=.*nowhere: no such program"):
        theirs(python=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="'theirs' needs the interpreter of its own environment: python=PATH"):
        CommandRestorer(RECIPE, checkout)
    with pytest.raises(ConfigError, match="'theirs' needs the folder of its code: checkout=PATH"):
        CommandRestorer(RECIPE, python=sys.executable)
    with pytest.raises(ConfigError, match="needs a recipe"):
        CommandRestorer()
    with pytest.raises(WeightsError, match=r"no weight file .*net.pth: it comes from their Drive folder"):
        theirs(recipe={"weights": {"net.pth": "their Drive folder"}})
    with pytest.raises(WeightsError, match="DiffBIR-v2"):
        theirs(recipe={"weights": {"weights/v2.pth": "diffbir-v2"}})


def test_recipe_from_a_file(tmp_path):
    import yaml

    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**RECIPE, "env": {"A": 1}}))
    assert Recipe.of(path) == Recipe.of({**RECIPE, "env": {"A": "1"}})
    with pytest.raises(ConfigError, match="no such file"):
        Recipe.of(tmp_path / "other.yaml")
    path.write_text("a: [")
    with pytest.raises(ConfigError, match="is no YAML"):
        Recipe.of(path)


def test_last_words_are_the_last_line_with_words(tmp_path):
    assert last_words(tmp_path) == ""
    (tmp_path / "stdout.txt").write_text("hello\n")
    (tmp_path / "stderr.txt").write_text(" \n---\n")
    assert last_words(tmp_path) == "hello"
    (tmp_path / "stderr.txt").write_bytes(b"10%\r100%|####|\r\x1b[31mKeyError:\x1b[0m 'a\xff'\n\n----\n")
    assert last_words(tmp_path) == "KeyError: 'a�'"
    (tmp_path / "stderr.txt").write_text("x" * 10**5)
    assert last_words(tmp_path) == "x" * 300


# as a stage of a run


@pytest.fixture
def rows(tmp_path):
    made = []
    for number, picture in enumerate(pictures(4, 512)):
        path = tmp_path / "lq" / f"{number}.png"
        save_png(path, picture)
        made.append(
            {
                "benchmark": "severe", "case_id": f"../odd name {number}", "lq_path": str(path),
                "lq_sha256": sha256_file(path), "reference_paths": [], "reference_sha256": [], "seed": 7, "age": None,
                "out_path": f"out/{number}.png",
            }
        )  # fmt: skip
    return made


def stage_of(checkout, interpreter, tmp_path, **options):
    recipe = {**RECIPE, **options.pop("recipe", {})}
    options = {"recipe": recipe, "checkout": str(checkout), "python": str(interpreter), **options}
    return RestoreStage(tmp_path, "theirs", options, restorer="command", device="cpu")


def test_results_go_through_the_checks_of_all_and_resume(checkout, interpreter, tmp_path, rows):
    faults(checkout, case_1="same", case_2="skip")

    def run(**options):
        stage = stage_of(checkout, interpreter, tmp_path, **options)
        return run_stage(stage, rows, engine=LocalEngine(2), journal_dir=tmp_path / "journal")

    results = run()
    assert [result["status"] for result in results] == ["ok", "passthrough", "failed", "ok"]
    assert "equals the input" in results[1]["error"] and "No face in 00002.png" in results[2]["error"]
    assert {result["peak_memory_bytes"] for result in results} == {None}
    for number in (0, 3):
        wanted = cv2.bilateralFilter(cv2.imread(rows[number]["lq_path"]), 5, 20, 5)
        assert np.array_equal(cv2.imread(str(tmp_path / "out" / f"{number}.png")), wanted)
    assert calls(checkout) == [4], "one program at a time, however many processes"

    assert run() == results and calls(checkout) == [4], "nothing is done twice"
    assert run(recipe={"case_seconds": 9.0}, keep=True) == results, "a time limit changes no result"
    run(recipe={"env": {"MODE": "other"}})
    assert calls(checkout) == [4, 4]
    (checkout / "main.py").write_text(PROGRAM + "# edited\n")
    run()
    assert calls(checkout) == [4, 4, 4]


def test_key_follows_weights_watched_files_and_commit(checkout, interpreter, tmp_path, rows):
    weights = checkout / "net.pth"
    weights.write_bytes(b"1")
    (checkout / "lib").mkdir()
    (checkout / "lib" / "net.py").write_text("1")

    def key():
        recipe = {"weights": {"net.pth": "nowhere"}, "watch": ["lib/*.py"]}
        return stage_of(checkout, interpreter, tmp_path, recipe=recipe).key(rows[0])

    keys = [key()]
    weights.unlink()
    (checkout / "lib" / "net.py").write_text("2")
    weights.write_bytes(b"1")
    keys.append(key())
    commit = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "a"]
    for command in (["git", "init", "-q"], commit):
        subprocess.run(command, cwd=checkout, check=True, capture_output=True)
    keys.append(key())
    subprocess.run(["git", "pack-refs", "--all"], cwd=checkout, check=True)
    assert key() == keys[-1]
    subprocess.run(commit, cwd=checkout, check=True, capture_output=True)
    keys.append(key())
    subprocess.run(["git", "checkout", "-q", "--detach", "HEAD~1"], cwd=checkout, check=True)
    assert key() == keys[2], "the same commit, detached"
    assert len(set(keys)) == len(keys)
