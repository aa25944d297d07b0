"""Options are held to their kinds before anything is made of them; what is wrong is one line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
from pydantic import Field

from ffhqref.core.errors import ConfigError
from ffhqref.core.options import Options, check_options, options_of, read_options
from ffhqref.restorers import RESTORERS, make_restorer

if TYPE_CHECKING:
    from ffhqref.core.registry import Registry as Unknown  # at run time the name means nothing


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("nlm", {"strength": "abc"}, "restorer 'nlm': strength=abc: expected a number"),
        ("nlm", {"strength": True}, "strength=true: expected a number"),
        ("tv", {"weight": [1]}, r"weight=\[1\]: expected a number"),
        ("gfpgan", {"path": 3}, "restorer 'gfpgan': path=3: expected a path or null"),
        ("gfpgan", {"path": ["a"]}, r"path=\['a'\]: expected a path or null"),
        ("realesrgan", {"threads": 1.5}, "threads=1.5: expected a whole number or null"),
        # options of the class that it is made from
        ("refldm-tiny", {"guidance_scale": "abc"}, "guidance_scale=abc: expected a number"),
        ("refldm-tiny", {"batch_size": "abc"}, "batch_size=abc: expected a whole number"),
        ("refldm-tiny", {"bath_size": 1}, "option 'bath_size'. Did you mean 'batch_size'.*: steps, .*batch_size"),
        ("difface", {"need_restoration": "maybe"}, "need_restoration=maybe: expected true or false"),
        ("command", {"recipe": 3}, "recipe=3: expected options, .*, a path or null"),
    ],
)
def test_a_value_of_another_kind_is_one_line(name, options, words):
    with pytest.raises(ConfigError, match=words) as caught:
        make_restorer(name, **options)
    assert "\n" not in str(caught.value)
    assert "TypeError" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("nlm", {"strength": 3}),
        ("gfpgan", {"path": Path("x"), "release": "1.3"}),
        ("pgdiff", {"respacing": [10, 20], "config": {}}),
        ("dmdnet", {"landmarks": len}),  # annotations that are no plain types are not judged
        ("refldm", {"max_references": None}),
        ("refldm", {"max_references": "preset"}),
    ],
)
def test_right_values_pass(name, options):
    check_options(RESTORERS.get(name), name, options)


def test_a_number_is_no_text():
    """YAML reads 1.10 as 1.1: a name must not be guessed back from a number."""
    with pytest.raises(ConfigError, match=r"restorer\.pgdiff\.task=1\.1: expected a text"):
        check_options(RESTORERS.get("pgdiff"), "restorer.pgdiff", {"task": 1.1})


class Theirs:
    def __init__(self, amount: int = 1, helper: Unknown | None = None, json: str = "a", implicit: int = None, **more):  # type: ignore[assignment]  # fmt: skip # noqa: RUF013
        pass


def test_options_of_a_constructor_are_its_parameters():
    model = options_of(Theirs)
    offered = {name: field.default for name, field in model.model_fields.items() if not field.exclude}
    assert offered == {"amount": 1, "json": "a", "implicit": None}, "an object that is handed over is no option"
    check_options(Theirs, "theirs", {"amount": 5, "what": 3, "helper": object(), "implicit": None})
    with pytest.raises(ConfigError, match=r"metric\.theirs\.amount=0\.5: expected a whole number"):
        check_options(Theirs, "metric.theirs", {"amount": 0.5})


class Report(Options):
    failures: Literal["worst", "excluded"] = "worst"
    cases: int = Field(default=3, ge=1)
    page: Path | None = None
    quality: tuple[str, ...] = ("niqe",)
    clusters: tuple[int, int] = (3, 3)


class Run(Options):
    root: str = "workspace"
    report: Report = Report()
    amount: float = 0.5


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"rot": 1}, "unknown key 'rot'. Did you mean 'root'? All keys: ffhqref run --cfg job"),
        ({"report": {"failurs": 1}}, "unknown key 'report.failurs'. Did you mean 'failures'? Its options: failures,"),
        ({"report": {"failures": "wrst"}}, "report.failures=wrst: expected worst or excluded. Did you mean 'worst'?"),
        ({"report": {"cases": 0}}, "report.cases=0: expected a whole number of at least 1"),
        ({"report": {"cases": True}}, "report.cases=true: expected a whole number of at least 1"),
        ({"report": {"cases": "3"}}, "report.cases=3: expected a whole number"),
        ({"report": {"page": 3}}, "report.page=3: expected a path or null"),
        ({"report": {"quality": "niqe"}}, "report.quality=niqe: expected a list, [first,second]"),
        ({"report": {"quality": ["a", 3]}}, "report.quality[1]=3: expected a text"),
        ({"report": {"clusters": [3]}}, "report.clusters=[3]: expected a list, [first,second]"),
        ({"report": 3}, "report=3: expected options, report.KEY=VALUE"),
        ({"root": 20241128}, "root=20241128: expected a text"),
        ({"amount": None}, "amount=null: expected a number"),
    ],
)
def test_faults_of_a_config_name_the_key_and_what_is_expected(data, words):
    with pytest.raises(ConfigError) as caught:
        read_options(Run, data)
    assert str(caught.value).startswith(words)


def test_a_config_is_read_as_yaml_holds_it():
    run = read_options(Run, {"amount": 1, "report": {"page": "a/b.html", "quality": ["ids"], "clusters": [2, 4]}})
    assert run.report == Report(page=Path("a/b.html"), quality=("ids",), clusters=(2, 4))
    assert run.amount == 1.0
