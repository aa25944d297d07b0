"""What must be right before the command restorer does any work: recipe, folders, programs, weights."""

import sys

import pytest

from ffhqref.core.errors import ConfigError, WeightsError
from ffhqref.restorers.command.recipe import Recipe
from ffhqref.restorers.command.restorer import CommandRestorer

from .conftest import RECIPE, calls


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
        ({"lq": "input.png"}, "needs {id}, or several images would have one name"),
        ({"output": "../../{id}.png"}, "must be a path below the folder"),
        ({"output": "{run}/{id}.png"}, "may have {id}, not '{run}'"),
        ({"files": {"../list.txt": "{lq}"}}, "must be a path below the folder"),
        ({"files": {"list.txt": "{reference}"}}, "the field 'references' is missing"),
        ({"group": "images"}, "group=images. Did you mean 'image'"),
        ({"case_seconds": 0}, "expected a number of seconds above 0"),
        ({"crop": [0, 0, 0, 5]}, "expected left, top, width and height"),
        ({"info": {"licens": "MIT"}}, "info has no 'licens'. Did you mean 'licence'"),
        ({"info": {"max_references": 3}}, "no field 'references' says where they are written"),
        ({"commands": [["{python}", "main.py", "--up", True]]}, "commands: true is no text: put it in quotes"),
        ({"env": {"MODE": None}}, "env.MODE: null is no text: put it in quotes"),
        ({"watch": ["modles/*.py"]}, "watch: no file in .* matches modles/"),
    ],
)
def test_a_wrong_recipe_is_one_line(theirs, checkout, changes, words):
    with pytest.raises(ConfigError, match=words.replace("{", r"\{").replace("[", r"\[")) as caught:
        theirs(recipe=changes)
    assert "\n" not in str(caught.value)
    assert calls(checkout) == []


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
    with pytest.raises(ConfigError, match="cannot be read"):
        Recipe.of(path)


@pytest.mark.parametrize(
    "field",
    [
        {"watch": ["/etc/*"]},
        {"watch": ["../*"]},
        {"watch": 5},
        {"commands": 5},
        {"commands": [5]},
        {"commands": "python main.py"},
        {"lq": 5},
        {"lq": [["a"]]},
        {"output": 5},
        {"group": ["run"]},
        {"references": {"a": 1}},
        {"fill_references": "many"},
        {"files": ["a"]},
        {"info": 5},
        {"crop": "all"},
    ],
)
def test_a_field_of_another_form_is_one_line(field):
    with pytest.raises(ConfigError):
        Recipe.of({**RECIPE, **field})


def test_a_program_gets_what_was_written(tmp_path):
    """YAML 1.1 would make 7, True, 1.1, 20241128, None and 750 of these, and 8 of 010."""
    arguments = ["007", "yes", "1.10", "2024_11_28", "null", "12:30", "1e5", "-1"]
    file = tmp_path / "recipe.yaml"
    file.write_text(
        f"commands: [[python, main.py, {', '.join(arguments)}]]\nlq: in/{{id}}.png\noutput: out/{{id}}.png\n"
        "env: {LEVEL: 010, FAST: on}\nfiles: {list.txt: 1.50}\ncase_seconds: 30\ninfo: {max_references: 0}\n"
    )
    recipe = Recipe.of(file)
    assert recipe.commands == (("python", "main.py", *arguments),)
    assert recipe.env == {"LEVEL": "010", "FAST": "on"}
    assert recipe.files == {"list.txt": "1.50"}
    assert recipe.case_seconds == 30


def test_a_parameter_that_the_recipe_does_not_use_is_refused(theirs):
    recipe = {"env": {"STEPS": "{steps}"}}
    assert theirs(recipe=recipe, parameters={"steps": 7}).cache_key_options["parameters"] == {"steps": "7"}
    with pytest.raises(ConfigError, match=r"parameters.stesp: the recipe has no placeholder '\{stesp\}'. Did you mean"):
        theirs(recipe=recipe, parameters={"steps": 7, "stesp": 9})
    with pytest.raises(ConfigError, match=r"parameters.steps: true is no text: put it in quotes"):
        theirs(recipe=recipe, parameters={"steps": True})
