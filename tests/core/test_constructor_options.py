"""Options of built-in parts are held to their annotations before anything is made of them."""

from pathlib import Path

import pytest

from ffhqref.core.errors import ConfigError
from ffhqref.core.registry import check_options, constructor_options
from ffhqref.restorers import RESTORERS, make_restorer


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("nlm", {"strength": "abc"}, "restorer 'nlm': strength=abc: expected a number"),
        ("nlm", {"strength": True}, "strength=True: expected a number"),
        ("tv", {"weight": [1]}, r"weight=\[1\]: expected a number"),
        ("gfpgan", {"path": 3}, "restorer 'gfpgan': path=3: expected a path or null"),
        ("gfpgan", {"path": ["a"]}, r"path=\['a'\]: expected a path or null"),
        ("realesrgan", {"threads": 1.5}, "threads=1.5: expected a whole number or null"),
        ("refldm-tiny", {"guidance_scale": "abc"}, "guidance_scale=abc: expected a number"),
        # options of the class that it is made from
        ("refldm-tiny", {"batch_size": "abc"}, "batch_size=abc: expected a whole number"),
        ("refldm-tiny", {"bath_size": 1}, "argument 'bath_size'; its options: steps, .*batch_size"),
        ("difface", {"need_restoration": "maybe"}, "need_restoration=maybe: expected true or false"),
        ("command", {"recipe": 3}, "recipe=3: expected options or a path or null"),
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
        ("gfpgan", {"path": Path("x"), "release": 1.3}),  # a release that YAML reads as a number
        ("pgdiff", {"respacing": [10, 20], "config": {}}),
        ("dmdnet", {"landmarks": len}),  # annotations that are no plain types are not judged
        ("refldm", {"max_references": None}),
        ("refldm", {"max_references": "preset"}),
    ],
)
def test_right_values_pass(name, options):
    check_options(RESTORERS.get(name), name, options)


class Theirs:
    def __init__(self, amount: "int" = 1, **more):
        pass


def test_other_packages_are_not_held_to_annotations_and_may_take_any():
    check_options(Theirs, "theirs", {"amount": 0.5, "what": 3})
    assert constructor_options(Theirs) == ({"amount": constructor_options(Theirs)[0]["amount"]}, True)
