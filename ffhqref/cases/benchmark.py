"""What a benchmark is: which targets, degraded how, with which references."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ffhqref.cases.reference_folder import LAYOUTS
from ffhqref.core.errors import ConfigError, did_you_mean
from ffhqref.core.options import Options, read_options
from ffhqref.core.registry import Registry
from ffhqref.degradation.model import Degradation, get_degradation


def _counts(numbers: tuple[int, int] | None) -> tuple[int, int] | None:
    if numbers is not None and not 1 <= numbers[0] <= numbers[1]:
        raise ValueError("expected [LEAST, MOST], for instance [1, 4]")
    return numbers


def _folder(path: Path | None) -> Path | None:
    if path is not None and not path.expanduser().is_dir():
        raise ValueError("no such folder")
    return path


def _layout(name: str | None) -> str | None:
    if name is not None and name not in LAYOUTS:
        raise ValueError(f"unknown layout.{did_you_mean(name, LAYOUTS)} Known: {', '.join(LAYOUTS)}")
    return name


def _source(text: str) -> str:
    if not re.fullmatch(r"unknown|real|synthetic(:.+)?", text):
        raise ValueError("expected unknown, real, or synthetic:NAME")
    return text


def _id(name: str | None) -> str | None:
    if name is not None and not re.fullmatch(r"[a-z0-9][a-z0-9._/-]*@[1-9][0-9]*", name):
        raise ValueError("expected NAME@VERSION in small letters, for instance mine@1")
    return name


class Benchmark(Options):
    """A benchmark. Its low-quality images are made here from the targets, or come from a folder."""

    name: str
    degradation: str | dict[str, Any] | None = None
    """Makes the low-quality images from the targets: a name (`ffhqref list`), a YAML file, or the options themselves
    (`ffhqref.degradation.Degradation`). null: they come from ``lq_folder``."""
    lq_folder: Annotated[Path | None, AfterValidator(_folder)] = None
    """Folder of published low-quality images, matched to the targets by file name."""
    gt_folder: Annotated[Path | None, AfterValidator(_folder)] = None
    """Folder of ground truths from outside, each the case of its name: the file's, or person/image where they lie in
    folders of people. ``lq_folder`` and ``reference_folder`` have the same names; without ``lq_folder`` there are
    outputs to score but nothing to restore."""
    exported: Annotated[Path | None, AfterValidator(_folder)] = None
    """Folder of one benchmark that `ffhqref export` wrote: its cases as they were."""
    split: Literal["train", "val", "test"] | None = None
    """Split whose targets are the cases; null: every image of ``lq_folder``, without ground truth."""
    references: int | None = Field(default=5, ge=1)
    """At most this many references a case, the first by rank; null: all."""
    reference_folder: Path | None = None
    """Folder of references of the images in ``lq_folder``, where those are no targets of a split."""
    reference_list: Path | None = None
    """CSV that says which reference is whose; null: the folder's layout says it."""
    reference_layout: Annotated[str | None, AfterValidator(_layout)] = None
    """folders, names, prefixes or buckets; null: the one that fits."""
    reference_source: Annotated[str, AfterValidator(_source)] = "unknown"
    """What those references are: real, synthetic:RENDERER or unknown."""
    people: int | None = Field(default=None, ge=1)
    """That many people of the split, one target each, drawn by the run's seed; null: every target."""
    reference_counts: Annotated[tuple[int, int] | None, AfterValidator(_counts)] = None
    """Least and most references of a case; how many and which are drawn by the run's seed, as FaceMe's CelebRef-HQ
    test does (1 to 4). null: the first ``references`` by rank."""
    ages: Literal["same", "cross"] | None = None
    """References of that side of the age sets, chosen from all direct neighbours; null: the references table."""
    published_set: str | None = None
    """Name that papers give to this very set of images; only then are published numbers shown beside."""
    published_degradation: str = ""
    """Level as papers print it."""
    id: Annotated[str | None, AfterValidator(_id)] = None
    """Name with a version to cite it by, mine@1. What it stands for is recorded, and another content refused under it.
    Not given: the id of a preset that is used as it is on the data set it is meant for."""
    definition: str | None = None
    """Hash that the content must have, or its beginning, where somebody else has published it with the id."""
    counts: tuple[int, ...] = ()
    """Numbers of images that sources state for this set; more than one when they disagree."""

    @classmethod
    def of(cls, name: str, options: Mapping[str, Any]) -> Benchmark:
        """Make a benchmark from its options, checked.

        Raises:
            ConfigError: an unknown key, a wrong value, or a contradiction between keys.
        """
        key = f"benchmark.{name}"
        given = {option: value for option, value in options.items() if option != "counts" or value is not None}
        made = read_options(cls, {"name": name, **given}, key)
        made._check_source()
        wants_split = {
            "degradation": "degrade the targets of",
            "ages": "choose references by age",
            "people": "draw from",
        }
        for option, why in wants_split.items():
            if getattr(made, option) is not None and made.split is None:
                raise ConfigError(f"{key}.{option}: needs a split; set {key}.split to train, val or test to {why}")
        made._check_given_references("reference_folder" in options)
        if made.degradation is not None:
            get_degradation(made.degradation, name)
        return made

    @property
    def makes(self) -> Degradation | None:
        """The degradation that makes the low-quality images; None where they come from a folder."""
        return None if self.degradation is None else get_degradation(self.degradation, self.name)

    @property
    def level(self) -> str | None:
        """Name of the degradation, as in the table ``degradations``."""
        made = self.makes
        return None if made is None else made.name

    @property
    def gives_references(self) -> bool:
        """Whether references come from a folder or list of their own, not from the table ``references``."""
        return self.reference_folder is not None or self.reference_list is not None

    def _check_source(self) -> None:
        key = f"benchmark.{self.name}"
        if self.exported is not None:
            for option in ("split", "degradation", "lq_folder", "gt_folder", "reference_folder", "reference_list"):
                if getattr(self, option) is not None:
                    raise ConfigError(f"{key}.{option}: not together with {key}.exported, which tells its cases")
        elif self.gt_folder is not None:
            for option in ("split", "degradation", "reference_list"):
                if getattr(self, option) is not None:
                    raise ConfigError(f"{key}.{option}: not together with {key}.gt_folder, whose images are the cases")
        elif (self.degradation is None) == (self.lq_folder is None):
            raise ConfigError(
                f"benchmark '{self.name}' needs its low-quality images: {key}.lq_folder=FOLDER of published ones, or "
                f"{key}.degradation=NAME to make them (one of the two)"
            )

        if self.published_set is not None and self.degradation is not None:
            raise ConfigError(
                f"{key}.published_set={self.published_set}: needs the published low-quality images ({key}.lq_folder); "
                "images made here are others, whose numbers do not stand beside printed ones"
            )

    def _check_given_references(self, expected: bool) -> None:
        key = f"benchmark.{self.name}"
        if expected and not self.gives_references and self.split is None:
            raise ConfigError(
                f"benchmark '{self.name}' needs the references of its images: {key}.reference_folder=FOLDER, or "
                f"{key}.reference_list=CSV"
            )
        if self.gives_references and self.split is not None:
            raise ConfigError(
                f"{key}.reference_folder: the references of a split come from the reference set; give one of "
                f"{key}.split and {key}.reference_folder"
            )
        if self.gives_references and self.reference_counts is not None:
            raise ConfigError(f"{key}.reference_counts: only drawn for a split; use {key}.references=NUMBER")
        if self.reference_layout is not None and self.reference_list is not None:
            raise ConfigError(f"{key}.reference_layout: a list says which reference is whose; leave out one of the two")


BENCHMARKS: Registry[Any] = Registry("benchmark", {}, "ffhqref.benchmarks", conf="benchmark")
"""Every benchmark by name: conf/benchmark/*.yaml, and what other packages add through the entry point group
``ffhqref.benchmarks`` (a mapping of options, or a function that returns one)."""


def plugin_options(name: str) -> dict[str, Any]:
    """Return the options of a benchmark that another package adds.

    Raises:
        ConfigError: its entry point does not import, or gives no options.
    """
    found = BENCHMARKS.get(name)
    if callable(found):
        found = found()
    if not isinstance(found, Mapping):
        raise ConfigError(f"benchmark '{name}': its entry point gives {found!r}, expected options")
    return dict(found)
