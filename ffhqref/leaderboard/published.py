"""Numbers that papers print, and whether a measured number may stand beside them.

The data file ``data/published.csv`` holds every row with its source and how far it can be trusted;
``data/published_protocols.csv`` says what a metric's signature must contain to mean the same as a paper's metric.
A published number is comparable where the release of low-quality images, the number of cases and references and the
metric agree; everywhere else the reason is given. The name of a set is not enough: two releases of low-quality images
go by the name CelebA-Test.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import TableError

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    import pandas as pd

    from ffhqref.leaderboard.methods import MethodFacts
    from ffhqref.restorers.base import RestorerInfo

TRUST_LEVELS = ("primary", "contradictory", "secondary")
"""Read from the paper or its code; printed with two values by the paper itself; quoted by someone else."""

SOURCES = {
    "RL-P": "ReF-LDM, arXiv 2412.05043",
    "FM-W": "FaceMe, arXiv 2501.05177 (project page)",
    "IC-P": "IConFace, arXiv 2605.02814",
    "IC-S": "IConFace, arXiv 2605.02814, supplement",
    "OS-W": "OSDFace, arXiv 2411.17163 (image of the table in the authors' repository)",
    "HF-W": "HonestFace, arXiv 2505.18469 (image of the table in the authors' repository)",
    "PM-W": "PMRF, arXiv 2410.00418 (image of the table in the authors' repository)",
    "AGG": "leaderboard aggregators",
}
"""What the tags in the column ``source`` stand for."""


@dataclass(frozen=True)
class BenchmarkInfo:
    """What a benchmark is made of: decides comparability, leak marks and merging."""

    name: str
    dataset: str
    """Name of the set as papers print it ("FFHQ-Ref test", "CelebA-Test-Ref") or any other for own sets."""
    degradation: str = ""
    """As papers print it ("Moderate", "Severe")."""
    max_references: int | None = None
    """References that a restorer was given at most; None: all that a case has."""
    n_cases: int = 0
    people_from: str = ""
    """Data set whose people are tested ("FFHQ"): weights trained on it have seen them."""
    protocol_hash: str = ""
    """Content hash of everything that defines the cases, images by their recorded hashes: leaderboards with different
    ones are never merged."""
    title: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)
    """Metric to what a reader must know of that column."""
    id: str = ""
    """Name with a version to cite it by; empty: it has none."""
    definition: str = ""
    """Hash of what the id stands for."""

    @property
    def citation(self) -> str:
        """The id and what it stands for, in words; empty without an id."""
        return f"{self.id}, definition {self.definition[:12]}" if self.id else ""

    @property
    def lq_release(self) -> str:
        """Published low-quality images that it runs on, as the table of published numbers calls them; "": its own.

        >>> BenchmarkInfo("mine", "CelebA-Test", "CelebA-Test LQ (DAEFR release)").lq_release
        'celeba-test/daefr'
        """
        return _releases().get((self.dataset, self.degradation.lower()), "")


@cache
def _published() -> pd.DataFrame:
    import pandas as pd

    folder = resources.files("ffhqref.leaderboard") / "data"
    numbers = {"value": "float64", "higher_is_better": "int8", "references": "Int32", "n_cases": "Int32"}
    with (folder / "published.csv").open(encoding="utf-8") as stream:
        frame = pd.read_csv(stream, dtype=defaultdict(lambda: "string", numbers))
    with (folder / "published_protocols.csv").open(encoding="utf-8") as stream:
        protocols = pd.read_csv(stream, dtype="string")
    frame["higher_is_better"] = frame["higher_is_better"].astype(bool)
    check_published(frame)
    exact = frame.merge(protocols, on=["paper", "metric"], how="left")
    general = frame[["paper"]].merge(protocols[protocols["metric"] == "*"].drop(columns="metric"), how="left")
    for column in ("requires", "reason"):
        frame[column] = exact[column].fillna(general[column]).to_numpy()
    return frame


@cache
def _releases() -> dict[tuple[str, str], str]:
    """Return (set, degradation in small letters) as papers print them to the release of low-quality images."""
    known = _published().dropna(subset=["lq_release"])
    sets = zip(known["dataset"], known["degradation"].str.lower(), strict=True)
    return dict(zip(sets, known["lq_release"], strict=True))


def check_published(frame: pd.DataFrame) -> None:
    """Check rows of published numbers.

    Raises:
        TableError: a key that occurs twice, a metric with two directions, a value out of its range, an unknown source
            or trust level, a set and degradation with two releases.
    """
    key = ["paper", "table", "dataset", "degradation", "method", "metric"]
    doubled = frame.duplicated(key)
    if doubled.any():
        raise TableError(f"published numbers: row occurs twice: {dict(frame.loc[doubled, key].iloc[0])}")
    ways = frame.groupby("metric")["higher_is_better"].nunique()
    if (ways > 1).any():
        raise TableError(f"published numbers: metrics with two directions: {list(ways[ways > 1].index)}")
    similarity = frame["metric"].isin(["SSIM", "CLIP-IQA", "MANIQA", "IDS", "Ref-ArcFace", "Ref-AdaFace", "GT-AdaFace"])
    for rows, low, high in ((similarity, -1.0, 1.0), (frame["metric"].isin(["LPIPS", "fLPIPS"]), 0.0, 2.0)):
        wrong = rows & ~frame["value"].between(low, high)
        if wrong.any():
            row = frame[wrong].iloc[0]
            raise TableError(f"published numbers: {row['metric']} = {row['value']} of {row['method']} is out of range")
    foreign = set(frame["source"]) - set(SOURCES) | set(frame["trust"]) - set(TRUST_LEVELS)
    if foreign:
        raise TableError(f"published numbers: unknown source or trust level {sorted(foreign)}")
    releases = frame.groupby(["dataset", "degradation"])["lq_release"].nunique()
    if (releases > 1).any():
        raise TableError(f"published numbers: sets with two LQ releases: {list(releases[releases > 1].index)}")


def published_numbers() -> pd.DataFrame:
    """Return all published numbers.

    Returns:
        ``paper, table, dataset, degradation, method, metric, value, higher_is_better``; ``lq_release``: which release
        of low-quality images was restored, null where none is known; ``method_key``: the method's name in this
        package's registry, null for ablations; ``source``: a key of `SOURCES`; ``trust, references,
        n_cases, note``; ``requires``: patterns that a metric's signature must contain, separated by ``;``, null where
        nothing is comparable; ``reason``: the metric in words, or why it cannot be compared.
    """
    return _published().copy()


def match_published(
    benchmarks: Mapping[str, BenchmarkInfo],
    methods: Mapping[str, MethodFacts | None],
    signatures: Mapping[str, str],
) -> pd.DataFrame:
    """Set published numbers beside measured ones where they mean the same, and say why not elsewhere.

    Args:
        benchmarks: the measured benchmarks.
        methods: measured method to what it is, where that is known.
        signatures: metric to its signature.

    Returns:
        ``benchmark, method, metric, published, source, trust, comparable, reason, paper, table``; one row for each
        published number of a measured method on the same set (or, for a set that no paper prints, under the same
        level), ``metric`` being the measured one that is nearest. Where a paper prints a number in two tables, the
        one without contradiction comes first.
    """
    import pandas as pd

    rows = []
    known = _published()
    for method, about in methods.items():
        own = known[known["method_key"] == ((about.kind if about else "") or method)]
        for name, info in benchmarks.items():
            for row in _near(own, info).to_dict("records"):
                metric, reason = _metric_match(row, signatures)
                if metric is None:
                    continue
                reason = _protocol_mismatch(row, info, about) or _other_method(row, about) or reason
                facts = [row["value"], row["source"], row["trust"], not reason, reason, row["paper"], row["table"]]
                rows.append([name, method, metric, *facts])
    columns = [
        "benchmark",
        "method",
        "metric",
        "published",
        "source",
        "trust",
        "comparable",
        "reason",
        "paper",
        "table",
    ]
    frame = pd.DataFrame(rows, columns=columns).astype({"comparable": bool})
    frame["order"] = frame["trust"].map({level: place for place, level in enumerate(TRUST_LEVELS)})
    by = ["benchmark", "method", "metric", "comparable", "order"]
    frame = frame.sort_values(by, ascending=[True, True, True, False, True], kind="stable", ignore_index=True)
    return frame.drop(columns="order")


@dataclass(frozen=True)
class PublishedCell:
    """A printed number under a measured metric."""

    value: float
    reason: str
    """Why it cannot be compared with measured numbers of the benchmark; empty: it can."""


@dataclass(frozen=True)
class PublishedRow:
    """What one table of a paper prints of a method on a benchmark's set and level."""

    method: str
    paper: str
    table: str
    trust: str
    cells: Mapping[str, PublishedCell]
    """By measured metric."""


def published_rows(info: BenchmarkInfo, signatures: Mapping[str, str]) -> list[PublishedRow]:
    """Return all that papers print for a benchmark's set and level, of measured methods and of others.

    Args:
        info: the benchmark; a set that no paper prints has no rows.
        signatures: metric to its signature; numbers of other metrics are left out.
    """
    known = _published()
    mine = known[known["dataset"] == info.dataset]
    same = mine["degradation"].str.lower() == info.degradation.lower()
    if info.lq_release:
        same |= mine["lq_release"] == info.lq_release
    found = []
    for (paper, table, method), part in mine[same.fillna(False).astype(bool)].groupby(["paper", "table", "method"]):
        cells: dict[str, PublishedCell] = {}
        for row in part.to_dict("records"):
            metric, reason = _metric_match(row, signatures)
            if metric is None or (metric in cells and not cells[metric].reason):
                continue
            cells[metric] = PublishedCell(float(row["value"]), _protocol_mismatch(row, info, None) or reason)
        if cells:
            trust = str(part["trust"].iloc[0])
            found.append(PublishedRow(str(method), str(paper), str(table), trust, cells))
    return sorted(found, key=lambda row: (row.method.lower(), row.paper, row.table))


def published_sets() -> pd.DataFrame:
    """Return the sets and levels that papers print numbers for: ``dataset, degradation, methods, papers, numbers``."""
    groups = _published().groupby(["dataset", "degradation"], dropna=False)
    return groups.agg(
        methods=("method", "nunique"), papers=("paper", "nunique"), numbers=("value", "size")
    ).reset_index()


VERSIONS = {"vqfr": "2", "vqfr_v1": "1"}
"""Methods with several published versions, and which is ours; a paper may not say which it ran."""


def _other_method(row: Mapping[Hashable, Any], method: MethodFacts | None) -> str:
    """Return why the measured method is not the published one, or ""."""
    key = str(row["method_key"])
    ours = VERSIONS.get(key)
    if ours and not str(row["method"]).endswith(f" v{ours}"):
        return f"the paper does not say which version of {row['method']} it ran; measured is version {ours}"
    return "" if method is None else method.departure()


def leak_mark(restorer: RestorerInfo | None, benchmark: BenchmarkInfo | None) -> str | None:
    """Return why a restorer's numbers on a benchmark are too good, or None.

    Weights trained on the data set that the test people come from have seen these people. The published training split
    of FFHQ-Ref keeps its people apart from the published test split, and from no other.

    >>> from ffhqref.restorers.base import RestorerInfo
    >>> test = BenchmarkInfo("severe", "FFHQ-Ref test", people_from="FFHQ")
    >>> leak_mark(RestorerInfo("codeformer", trained_on=("FFHQ",)), test)
    'trained on FFHQ, whose people are tested here'
    >>> refldm = RestorerInfo("refldm", trained_on=("FFHQ-Ref train",))
    >>> leak_mark(refldm, test) is None
    True
    >>> leak_mark(refldm, BenchmarkInfo("severe", "ffhq test", people_from="FFHQ"))
    'trained on FFHQ-Ref train, whose people are tested here'
    """
    if restorer is None or benchmark is None or not benchmark.people_from:
        return None
    tested = _family(benchmark.people_from)
    for trained in restorer.trained_on:
        of_release = re.match(r"ffhq-ref\b", trained.strip().lower()) is not None
        if of_release and benchmark.dataset.startswith("FFHQ-Ref"):
            continue
        if _family(re.split(r"[\s(,:]", trained.strip(), maxsplit=1)[0]) == tested:
            return f"trained on {trained}, whose people are tested here"
    return None


FAMILIES = {"ffhqref": "ffhq", "celebahq": "celeba", "celebamaskhq": "celeba", "celebref": "celebrefhq"}
"""Data sets whose people are those of a larger one."""


def _family(name: str) -> str:
    return FAMILIES.get(_plain(name), _plain(name))


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _near(known: pd.DataFrame, info: BenchmarkInfo) -> pd.DataFrame:
    """Return the rows a reader would want to compare a benchmark with, comparable or not."""
    same_set = known[known["dataset"] == info.dataset]
    if same_set.empty:
        return known[known["degradation"].str.lower() == info.degradation.lower()]
    same_images = same_set[same_set["degradation"].str.lower() == info.degradation.lower()]
    if info.lq_release:
        same_images = same_set[same_set["lq_release"] == info.lq_release]
    return same_set if same_images.empty else same_images


def _metric_match(row: Mapping[Hashable, Any], signatures: Mapping[str, str]) -> tuple[str | None, str]:
    """Return the measured metric nearest to a published one, and why it is not the same ("" when it is)."""
    near = [name for name in sorted(signatures) if _plain(name).startswith(_plain(row["metric"]))]
    if not near:
        return None, ""
    if not isinstance(row["requires"], str):
        return near[0], str(row["reason"])
    patterns = row["requires"].split(";")
    for name in near:
        if all(re.search(pattern, signatures[name], re.IGNORECASE) for pattern in patterns):
            return name, ""
    return near[0], f"other metric: published is {row['reason']}; measured is {signatures[near[0]]}"


def _protocol_mismatch(row: Mapping[Hashable, Any], info: BenchmarkInfo, method: MethodFacts | None) -> str:
    """Return what differs beside metric and method, or ""."""
    import pandas as pd

    references, n_cases = row["references"], row["n_cases"]
    if row["dataset"] != info.dataset:
        return f"other set: published on {row['dataset']}, measured on {info.dataset}"
    if info.lq_release and row["lq_release"] != info.lq_release:
        theirs = row["degradation"] if pd.isna(row["lq_release"]) else row["lq_release"]
        return f"other low-quality images: published on {theirs}, measured on {info.lq_release}"
    if row["degradation"].lower() != info.degradation.lower():
        return f"other degradation: published {row['degradation']}, measured {info.degradation or 'unnamed'}"
    if not pd.isna(n_cases) and int(n_cases) != info.n_cases:
        return f"other cases: published on {int(n_cases)}, measured on {info.n_cases}"
    at_most = None if method is None else method.info.max_references
    limits = [limit for limit in (info.max_references, at_most) if limit is not None]
    measured = min(limits, default=None)
    if not pd.isna(references) and at_most != 0 and measured != int(references):
        return f"other references: published with {int(references)}, measured with {measured or 'all'}"
    if isinstance(row["note"], str) and "leaves out" in row["note"]:
        return row["note"]
    return ""
