"""The data card: what a reference set is made of, in numbers; never images, never embeddings.

Written next to the tables as ``datacard.md``, ``datacard.html`` and ``croissant.json``. Everything in it follows from
the tables, so the same tables give the same bytes.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.core.errors import TableError
from ffhqref.core.escape import markdown, markdown_code, markdown_link
from ffhqref.core.files import write_atomic
from ffhqref.reference_sets.croissant import croissant
from ffhqref.reference_sets.options import CardOptions
from ffhqref.reference_sets.splits import SPLITS
from ffhqref.store import tables

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

AGE_CLASSES = (0, 3, 10, 20, 30, 40, 50, 60, 70)
"""Lower ends of FairFace's age classes, with which ReF-LDM's poster describes FFHQ-Ref."""
GAP_CLASSES = (0, 1, 2, 5, 10, 20)
"""Lower ends in years of the classes of the age gap."""
MOST_KINDS = 12
"""A column with more different texts is no class."""
DESCRIBED = ("images", "licences", "attributes", "ages", "pairs", "identities", "references")
"""Tables that the card counts and the Croissant file lists; embeddings are biometric data and stay out."""


@dataclass(frozen=True)
class Histogram:
    """Counts in classes, one column for each split."""

    title: str
    note: str
    classes: tuple[str, ...]
    counts: Mapping[str, tuple[int, ...]]
    """Split to one count a class."""
    summary: Mapping[str, str]
    """Split to mean and standard deviation, in words; empty for classes that are no numbers."""

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that have any value."""
        return tuple(split for split in self.counts if self.total(split))

    @property
    def rows(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """Class and its count in each of `splits`; classes before the first and after the last value are left out."""
        rows = [(name, tuple(self.counts[split][at] for split in self.splits)) for at, name in enumerate(self.classes)]
        there = [at for at, (_, counts) in enumerate(rows) if any(counts)]
        return tuple(rows[there[0] : there[-1] + 1]) if there else ()

    @property
    def plot(self) -> Plot:
        """The shares as bars."""
        return Plot(self)

    def total(self, split: str) -> int:
        """Return the number of values of a split."""
        return sum(self.counts[split])


@dataclass(frozen=True)
class Bar:
    """One bar of a plot, in pixels."""

    x: float
    y: float
    width: float
    height: float
    split: str
    told: str


class Plot:
    """Bars of a histogram: groups of classes, a bar a split, heights are shares of the split.

    Args:
        histogram: with at least one value.
    """

    width, height, left, base = 720, 200, 44, 150

    def __init__(self, histogram: Histogram) -> None:
        rows, splits = histogram.rows, histogram.splits
        totals = [histogram.total(split) for split in splits]
        shares = [[count / total for count, total in zip(counts, totals, strict=True)] for _, counts in rows]
        self.most = max((share for group in shares for share in group), default=1.0)
        step = (self.width - self.left) / max(1, len(rows))
        wide = min(48.0, 0.8 * step / max(1, len(splits)))
        self.bars: list[Bar] = []
        self.labels: list[tuple[float, str]] = []
        for at, (name, counts) in enumerate(rows):
            middle = self.left + (at + 0.5) * step
            self.labels.append((round(middle, 1), name))
            for order, (split, count) in enumerate(zip(splits, counts, strict=True)):
                tall = (self.base - 16) * shares[at][order] / self.most
                x = middle + (order - len(splits) / 2) * wide
                told = f"{name}: {count:,} of {split}, {100 * shares[at][order]:.1f} %"
                self.bars.append(
                    Bar(round(x, 1), round(self.base - tall, 1), round(wide - 1, 1), round(tall, 1), split, told)
                )
        self.steep = any(len(name) * 7 > step for _, name in self.labels)


@dataclass(frozen=True)
class TableFacts:
    """One file of the set."""

    name: str
    rows: int
    content: str
    """Hash of the rows, as later tables record it."""


@dataclass(frozen=True)
class Card:
    """What the card says."""

    name: str
    licence: str
    attribution: str
    counts: Mapping[str, Mapping[str, int]]
    """Split (and ``all``) to images, identities, targets and references."""
    left_out: Mapping[str, int]
    """Reason to number of images that could not be used."""
    histograms: tuple[Histogram, ...]
    licences: tuple[tuple[str, str, int, int], ...]
    """Licence, its address, images, authors; empty when images have no licence of their own."""
    age_sources: Mapping[str, int]
    """Source to number of ages."""
    unknown_ages: int
    settings: Mapping[str, str]
    """How it was made: the builder's choices and the embedder."""
    files: tuple[TableFacts, ...]
    about: CardOptions
    """What its makers say."""

    @property
    def told(self) -> tuple[tuple[str, str], ...]:
        """What the makers say of purpose, consent and contact, and what they leave open."""
        said = (("Purpose", self.about.purpose), ("Consent", self.about.consent), ("Contact", self.about.contact))
        return tuple((what, text or "not stated") for what, text in said)


def describe(
    root: str | Path, held: Mapping[str, pd.DataFrame] | None = None, about: CardOptions | None = None
) -> Card:
    """Collect the card's numbers from the tables of a workspace.

    Args:
        root: the workspace; ``images``, ``identities`` and ``references`` must exist.
        held: tables that the caller has in memory, by name; others are read.
        about: what no table knows.

    Raises:
        TableError: a table is missing or damaged.
    """
    found, about = _Tables(root, held or {}), about or CardOptions()
    images, identities, references = (found.needed(name) for name in ("images", "identities", "references"))
    ages, licences = found.get("ages"), found.get("licences")
    origin = tables.read_metadata(root, "images").get("dataset", {})
    known = identities[identities["identity_id"].notna()]
    years = dict(zip(ages["image_id"], ages["age"], strict=True)) if ages is not None else {}
    bad = images.loc[images["error"].notna(), "error"]
    reasons = bad.str.replace(r"\d+x\d+ pixels", "too small", regex=True).str.split(r"[,(:]", regex=True).str[0]
    return Card(
        name=about.title or str(origin.get("name", "reference set")),
        licence=about.licence or str(origin.get("licence", "")) or "not stated",
        attribution=str(origin.get("attribution", "")),
        counts=_counts(known, references),
        left_out={str(reason): int(count) for reason, count in sorted(reasons.value_counts().items())},
        histograms=(*_histograms(known, references, years), *_attributes(known, found.get("attributes"))),
        licences=_licences(licences),
        age_sources={} if ages is None else {str(k): int(v) for k, v in sorted(ages["source"].value_counts().items())},
        unknown_ages=int((~images.loc[images["error"].isna(), "image_id"].isin(list(years))).sum()),
        settings=_settings(root, found.get("embeddings")),
        files=tuple(_files(found)),
        about=about,
    )


def write_card(
    root: str | Path,
    out: str | Path | None = None,
    held: Mapping[str, pd.DataFrame] | None = None,
    about: CardOptions | None = None,
) -> list[Path]:
    """Write ``datacard.md``, ``datacard.html`` and ``croissant.json`` and return their paths.

    Args:
        root: the workspace.
        out: folder; the workspace itself by default, so that the Croissant file finds the tables beside it.
        held: see `describe`.
        about: see `describe`.
    """
    import json

    card = describe(root, held, about)
    folder = Path(out or root)
    described = croissant(
        root,
        folder,
        name=card.name,
        licence=card.licence,
        attribution=card.attribution,
        counts=card.counts["all"],
        names=[file.name for file in card.files],
    )
    texts = {
        "datacard.md": to_markdown(card),
        "datacard.html": to_html(card),
        "croissant.json": json.dumps(described, indent=1, ensure_ascii=False) + "\n",
    }
    for name, text in texts.items():
        write_atomic(folder / name, text.encode())
    return [folder / name for name in texts]


def to_markdown(card: Card) -> str:
    """Return the card as GitHub-flavoured Markdown."""
    return _render("card.md.j2", card)


def to_html(card: Card) -> str:
    """Return the card as one HTML page without scripts; everything from tables is escaped."""
    return _render("card.html.j2", card)


FILTERS = {"cell": markdown, "code": markdown_code, "link": markdown_link}
"""Of the pages in Markdown."""


def page_environment(escape: bool) -> Any:
    """Return the Jinja environment of the pages in this package."""
    import jinja2

    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "pages"),
        autoescape=escape,  # noqa: S701 - Markdown has an escape of its own
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _render(template: str, card: Card) -> str:
    environment = page_environment(template.endswith(".html.j2"))
    environment.filters |= FILTERS
    return str(environment.get_template(template).render(card=card, splits=SPLITS))


@dataclass(frozen=True, eq=False)
class _Tables:
    """The tables of a workspace, those in memory before those on disk."""

    root: str | Path
    held: Mapping[str, pd.DataFrame]

    def needed(self, name: str) -> pd.DataFrame:
        return self.held[name] if name in self.held else tables.read_table(self.root, name)

    def get(self, name: str) -> pd.DataFrame | None:
        there = name in self.held or tables.table_path(self.root, name).is_file()
        return self.needed(name) if there else None

    def rows(self, name: str) -> int:
        return len(self.held[name]) if name in self.held else tables.row_count(self.root, name)


def _counts(known: pd.DataFrame, references: pd.DataFrame) -> dict[str, dict[str, int]]:
    found = {}
    for split in (*SPLITS, "all"):
        images = known if split == "all" else known[(known["split"] == split).to_numpy(bool, na_value=False)]
        rows = references if split == "all" else references[references["split"] == split]
        found[split] = {
            "images": len(images),
            "identities": int(images["identity_id"].nunique()),
            "targets": int(rows["target_id"].nunique()),
            "references": len(rows),
        }
    return found


def _histograms(known: pd.DataFrame, references: pd.DataFrame, years: Mapping[str, float]) -> list[Histogram]:
    def of_split(frame: pd.DataFrame, split: str) -> pd.DataFrame:
        return frame[(frame["split"] == split).to_numpy(bool, na_value=False)]

    def values(pick: Any) -> dict[str, NDArray[np.float64]]:
        return {split: np.asarray(pick(split), np.float64) for split in SPLITS}

    steps, distance_classes = _nice_classes(
        0.0, float(references["distance"].fillna(0.0).max()) if len(references) else 0.0
    )
    parts = [
        (
            "References of a target",
            "Number of references.",
            values(lambda split: of_split(references, split).groupby("target_id").size()),
            np.arange(1, 11),
            (*map(str, range(1, 10)), "10 and more"),
        ),
        (
            "Size of an identity",
            "Images of one person, among those that have any reference.",
            values(lambda split: of_split(known, split).groupby("identity_id").size()),
            np.array([2, 3, 4, 5, 7, 10, 20]),
            ("2", "3", "4", "5-6", "7-9", "10-19", "20 and more"),
        ),
        (
            "Distance from target to reference",
            "Cosine distance; each class is named by its lower end.",
            values(lambda split: of_split(references, split)["distance"].dropna().round(6)),
            steps,
            distance_classes,
        ),
        (
            "Age",
            "Years, of images with an identity and a known age; FairFace's classes.",
            values(lambda split: [years[name] for name in of_split(known, split)["image_id"] if name in years]),
            np.array(AGE_CLASSES),
            _class_names(AGE_CLASSES),
        ),
        (
            "Age gap between target and reference",
            "Years, without sign, where both ages are known.",
            values(lambda split: of_split(references, split)["age_gap"].dropna().abs()),
            np.array(GAP_CLASSES),
            tuple(
                f"{low} and more" if low == GAP_CLASSES[-1] else f"{low} to below {high}"
                for low, high in zip(GAP_CLASSES, (*GAP_CLASSES[1:], 0), strict=True)
            ),
        ),
    ]
    return [_histogram(*part) for part in parts if any(len(found) for found in part[2].values())]


def _histogram(
    title: str, note: str, values: dict[str, NDArray[np.float64]], lows: NDArray[Any], classes: Sequence[str]
) -> Histogram:
    counts, summary = {}, {}
    for split, found in values.items():
        found = found[np.isfinite(found)]
        place = np.clip(np.searchsorted(lows, found, side="right") - 1, 0, len(lows) - 1)
        counts[split] = tuple(np.bincount(place, minlength=len(lows)).tolist())
        summary[split] = f"{found.mean():.4g} ± {found.std():.3g}" if len(found) else "–"
    return Histogram(title, note, tuple(classes), counts, summary)


def _nice_classes(low: float, high: float) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return lower ends and names of about ten classes in steps of 1, 2 or 5 times a power of ten.

    Embedders differ in scale: 0.4 for ArcFace, 0.05 for dlib.
    """
    least = (high - low) / 9 if high > low else 0.1
    power = 10.0 ** float(np.floor(np.log10(least)))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))
    digits = max(0, int(-np.floor(np.log10(step) + 1e-9)))
    first, last = np.floor(round(low / step, 6)), np.ceil(round(high / step, 6))
    lows = np.asarray(np.round(step * np.arange(first, max(last, first + 1)), digits), np.float64)
    return lows, tuple(f"{low:.{digits}f}" for low in lows)


def _attributes(known: pd.DataFrame, frame: pd.DataFrame | None) -> list[Histogram]:
    """Count the columns of ``attributes`` that are numbers or have few values; others (names, dates) say nothing."""
    import pandas as pd

    found = []
    split_of = dict(zip(known["image_id"], known["split"], strict=True))
    for name, part in frame.groupby("attribute", sort=True) if frame is not None else ():
        if name in ("age", "age_group"):
            continue
        part = part[part["image_id"].isin(list(split_of))]
        split = part["image_id"].map(split_of)
        number = pd.to_numeric(part["value"], errors="coerce")
        kinds = sorted(part["value"].unique())
        title = f"Attribute: {name}"
        if len(kinds) > MOST_KINDS and number.notna().all() and np.isfinite(number).all():
            lows, classes = _nice_classes(float(number.min()), float(number.max()))
            values = {each: number[split == each].to_numpy(np.float64) for each in SPLITS}
            note = "Images with an identity; each class is named by its lower end."
            found.append(_histogram(title, note, values, lows, classes))
        elif 0 < len(kinds) <= MOST_KINDS:
            tables_of = {each: part.loc[split == each, "value"].value_counts() for each in SPLITS}
            counts = {each: tuple(int(count.get(kind, 0)) for kind in kinds) for each, count in tables_of.items()}
            note = "Images with an identity."
            found.append(Histogram(title, note, tuple(kinds), counts, {}))
    return found


def _class_names(lows: Sequence[int]) -> tuple[str, ...]:
    return (*(f"{low}-{high - 1}" for low, high in itertools.pairwise(lows)), f"{lows[-1]} and more")


def _licences(frame: pd.DataFrame | None) -> tuple[tuple[str, str, int, int], ...]:
    if frame is None or frame.empty:
        return ()
    groups = frame.groupby(["licence", "licence_url"], sort=True)
    found = [(str(name), str(url), len(part), int(part["author"].nunique())) for (name, url), part in groups]
    return tuple(sorted(found, key=lambda entry: (-entry[2], entry[0])))


def _settings(root: str | Path, embeddings: pd.DataFrame | None) -> dict[str, str]:
    found = {f"build.{key}": str(value) for key, value in tables.read_metadata(root, "references")["config"].items()}
    if embeddings is not None and len(embeddings):
        found["embedder"] = str(embeddings["embedder"].iloc[0])
    return dict(sorted(found.items()))


def _files(found: _Tables) -> list[TableFacts]:
    rows = {name: found.rows(name) for name in DESCRIBED}
    files = [TableFacts(name, count, tables.table_hash(found.root, name)) for name, count in rows.items() if count]
    if not files:
        raise TableError(f"no tables in {found.root}; run the build pipeline first")
    return files
