"""Names of benchmarks that can be cited, and the hash of what each of them stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypedDict

from ffhqref.cases.benchmark import BENCHMARKS, Benchmark
from ffhqref.core.errors import ConfigError
from ffhqref.core.hashing import content_key
from ffhqref.store.workspace import OWN

if TYPE_CHECKING:
    import pandas as pd

PUBLIC = {
    "severe": ("ffhqref-severe@1", "ffhq", False),
    "moderate": ("ffhqref-moderate@1", "ffhq", False),
    "refldm_severe": ("refldm-severe@1", "ffhq", True),
    "refldm_moderate": ("refldm-moderate@1", "ffhq", True),
    "celeba_test_ref": ("celeba-test-ref/gfpgan@1", "celeba_hq", True),
    "celeba_test_gfpgan": ("celeba-test/gfpgan@1", None, None),
    "celeba_test_daefr": ("celeba-test/daefr@1", None, None),
    "lfw_test": ("lfw-test@1", None, None),
    "wider_test": ("wider-test@1", None, None),
    "webphoto_test": ("webphoto-test@1", None, None),
    "celebchild_test": ("celebchild-test@1", None, None),
}
"""Preset to its id, the data set it is made on, and whether on a published reference set; None: either way."""

_PLACES = ("id", "definition", "lq_folder", "gt_folder", "reference_folder", "reference_list", "exported")
"""Options that say where things are or what they are called, not what they are."""


class Definition(TypedDict):
    """What an id stands for, as the table ``cases`` records it."""

    benchmark: str
    definition: str
    """Hash of the parts."""
    parts: dict[str, str]
    """Hashes of targets, low-quality images, references and protocol."""


def public_id(benchmark: Benchmark, dataset: str, *, released: bool, cases: int, whole: bool) -> str | None:
    """Return the id of a benchmark: the one given, or the preset's where this is what the preset says; None: no id.

    Args:
        benchmark: with its options.
        dataset: name of the workspace's data set.
        released: its reference set is a published one.
        cases: how many there are.
        whole: no limit was set and no image is missing.
    """
    if "id" in benchmark.model_fields_set:
        return benchmark.id
    name, on, of_release = PUBLIC.get(benchmark.name, (None, None, None))
    if name is None or not whole or on not in (None, dataset) or of_release not in (None, released):
        return None
    preset = Benchmark.of(
        benchmark.name, {**BENCHMARKS.get(benchmark.name)[benchmark.name], **_given_places(benchmark)}
    )
    counted = not benchmark.counts or cases in benchmark.counts
    return name if counted and _protocol(preset) == _protocol(benchmark) else None


def possible_id(benchmark: Benchmark) -> str | None:
    """Return the id that a benchmark may have, as far as its options tell; None: no id."""
    return benchmark.id if "id" in benchmark.model_fields_set else PUBLIC.get(benchmark.name, (None,))[0]


def define(benchmark: Benchmark, cases: pd.DataFrame, sha256: Mapping[str, str]) -> Definition:
    """Return what a benchmark is, by content.

    Args:
        benchmark: with its options.
        cases: its cases.
        sha256: path in the tables (`OWN` before those of the workspace, LQ images excepted) to the image's hash.
    """
    rows = cases.sort_values("case_id")
    ids = rows["case_id"].tolist()
    truths = [sha256[path] if isinstance(path, str) else None for path in rows["gt_path"]]
    parts = {
        "targets": content_key(list(zip(ids, truths, strict=True))),
        "low-quality images": content_key(list(zip(ids, [sha256[path] for path in rows["lq_path"]], strict=True))),
        "references": content_key(
            [[name, [sha256[path] for path in paths]] for name, paths in zip(ids, rows["reference_paths"], strict=True)]
        ),
        "protocol": content_key(_protocol(benchmark)),
    }
    return {"benchmark": benchmark.name, "definition": content_key(parts), "parts": parts}


def check_definition(name: str, made: Definition, known: Mapping[str, Definition], pinned: str | None) -> None:
    """Refuse a benchmark that is not what its id stands for.

    Args:
        name: the id.
        made: what it is now.
        known: what ids stood for before.
        pinned: the hash that the config expects, or its beginning.

    Raises:
        ConfigError: with what changed and what can be done.
    """
    benchmark = made["benchmark"]
    remedy = (
        f"raise the version (benchmark.{benchmark}.id={_next(name)}) or drop the id (benchmark.{benchmark}.id=null)"
    )
    before = known.get(name)
    if before is not None and before["definition"] != made["definition"]:
        changed = [part for part, digest in made["parts"].items() if before["parts"].get(part) != digest]
        raise ConfigError(f"benchmark '{benchmark}' is no longer {name}: other {', '.join(changed)}; {remedy}")
    if pinned is not None and not made["definition"].startswith(pinned):
        raise ConfigError(
            f"benchmark '{benchmark}' is not {name}: its definition is {made['definition'][:12]}, expected "
            f"{pinned[:12]}; {remedy}"
        )


def image_hashes(images: pd.DataFrame, degradations: pd.DataFrame, imports: pd.DataFrame) -> dict[str, str]:
    """Return the hash of each image by its path in the table ``cases``."""
    found = dict(zip(images["path"], images["sha256"], strict=True))
    made = degradations.dropna(subset=["lq_path"])
    found |= dict(zip(made["lq_path"], made["lq_sha256"], strict=True))
    brought = imports.dropna(subset=["path"])
    own = brought["path"].where(brought["role"] == "lq", OWN + brought["path"])
    return found | dict(zip(own, brought["sha256"], strict=True))


def _protocol(benchmark: Benchmark) -> dict[str, Any]:
    made = benchmark.makes
    options = benchmark.model_dump(mode="json", exclude={"name", "degradation", "counts", *_PLACES})
    return {
        **options,
        "degradation": None if made is None else made.model_dump(mode="json", exclude={"source", "notes"}),
    }


def _given_places(benchmark: Benchmark) -> dict[str, Any]:
    return {option: value for option in _PLACES[2:] if (value := getattr(benchmark, option)) is not None}


def _next(name: str) -> str:
    stem, _, version = name.partition("@")
    return f"{stem}@{int(version) + 1}"
