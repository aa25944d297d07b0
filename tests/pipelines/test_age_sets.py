"""The benchmarks same_age and cross_age against brute force over the tables."""

from __future__ import annotations

import csv
import re

import numpy as np
import pytest

from ffhqref.reference_sets.agesets import LABEL
from ffhqref.store import tables
from ffhqref.store.workspace import Workspace

from .conftest import build_arguments
from .test_cli import one_line

SETS = "benchmark=[same_age,cross_age]"


def neighbours(root, sample_folder):
    """Return target to {reference: gap in years} of the test split, straight from vectors and the ages' source."""
    with (sample_folder / "metadata.csv").open() as stream:
        age = {row["file"][:5]: float(row["age"]) for row in csv.DictReader(stream)}
    config = tables.read_metadata(root, "references")["config"]
    identities = tables.read_table(root, "identities").set_index("image_id")
    frame = tables.read_table(root, "embeddings")
    units = np.stack(frame["vector"]).astype(np.float64)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    names, distance = frame["image_id"].tolist(), 1 - units @ units.T
    found = {}
    for i, target in enumerate(names):
        if identities["split"][target] != "test":
            continue
        near = (distance[i] >= config["min_distance"]) & (distance[i] < config["max_distance"])
        found[target] = {
            other: age[other] - age[target]
            for j, other in enumerate(names)
            if near[j] and identities["identity_id"][other] == identities["identity_id"][target]
        }
    return found


def test_both_sets_are_those_of_brute_force_and_share_targets(workspace, ffhqref, few_faces, sample_folder):
    """The reference table keeps one reference a target here: the sets must come from all direct neighbours."""
    arguments = (*build_arguments(few_faces, sample_folder), "dataset.max_references=1", SETS)
    done = ffhqref("run", f"root={workspace}", *arguments, "restorer=[lq]", "metric=[psnr]", "report.n_bootstrap=100")
    assert done.returncode == 0, done.stderr
    assert tables.read_table(workspace, "references").query("split == 'test'")["rank"].max() == 0
    cases = tables.read_table(workspace, "cases").set_index(["benchmark", "case_id"])
    wanted = {}
    for target, others in neighbours(workspace, sample_folder).items():
        same = {name for name, gap in others.items() if abs(gap) <= 5}
        cross = {name for name, gap in others.items() if abs(gap) >= 10}
        if same and cross:
            wanted[target] = (same, cross, min(len(same), len(cross), 5))
    assert wanted
    assert any(len(same) > 1 and len(cross) > 1 for same, cross, _ in wanted.values())
    assert set(cases.loc["same_age"].index) == set(cases.loc["cross_age"].index) == set(wanted)
    for target, (same, cross, count) in wanted.items():
        for name, side in (("same_age", same), ("cross_age", cross)):
            chosen = [path[:-4] for path in cases.loc[(name, target), "reference_paths"]]
            assert len(chosen) == len(set(chosen)) == count
            assert set(chosen) <= side
    assert cases.loc["same_age"]["age_gap"].max() <= 5
    assert cases.loc["cross_age"]["age_gap"].min() >= 10
    assert cases.loc["same_age"]["lq_path"].equals(cases.loc["cross_age"]["lq_path"])

    page = (workspace / "report" / "report.html").read_text().replace("&#39;", "'")
    assert LABEL in page
    assert "same-age against cross-age" in page
    assert LABEL in done.stderr


def test_limits_and_widths_of_the_config(workspace, ffhqref, sample_folder):
    done = ffhqref("degrade", f"root={workspace}", SETS, "limit=3", "age_sets.max_references=1")
    assert done.returncode == 0, done.stderr
    cases = tables.read_table(workspace, "cases")
    assert cases.groupby("benchmark")["target_id"].agg(list).map(tuple).nunique() == 1
    assert len(cases) == 6
    assert set(cases["reference_paths"].map(len)) == {1}
    none = ffhqref("degrade", f"root={workspace}", SETS, "age_sets.cross_min=60")
    said = re.search(
        r"no target has references .*; gaps are \d+ to \d+ years: (age_sets.cross_min=\d+) gives (\d+)", one_line(none)
    )
    assert said
    done = ffhqref("degrade", f"root={workspace}", SETS, said[1])
    assert done.returncode == 0, done.stderr
    cases = tables.read_table(workspace, "cases")
    assert set(cases["benchmark"].value_counts()) == {int(said[2])}


@pytest.mark.slow
def test_rejected_pairs_stay_rejected(workspace, ffhqref, few_faces, sample_folder, tmp_path):
    """A manual check of the set holds for the benchmarks by age too, and cannot be forgotten."""
    target, others = next(
        (target, [name for name, gap in others.items() if abs(gap) >= 10])
        for target, others in neighbours(workspace, sample_folder).items()
        if sum(abs(gap) >= 10 for gap in others.values()) > 1 and any(abs(gap) <= 5 for gap in others.values())
    )
    verdicts = tmp_path / "verdicts.csv"
    verdicts.write_text("target_id,reference_id,verdict\n" + f"{target},{others[0]},reject\n")
    arguments = build_arguments(few_faces, sample_folder)
    done = ffhqref("build", f"root={workspace}", f"exclusions={verdicts}", *arguments)
    assert done.returncode == 0, done.stderr
    assert "other exclusions" in one_line(ffhqref("degrade", f"root={workspace}", SETS, "exclusions=null"))
    done = ffhqref("degrade", f"root={workspace}", SETS)  # the workspace remembers them
    assert done.returncode == 0, done.stderr
    cases = tables.read_table(workspace, "cases").set_index(["benchmark", "case_id"])
    assert set(cases.loc[("cross_age", target), "reference_paths"]) == {f"{name}.jpg" for name in others[1:]}


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("benchmark.same_age.ages=some", "expected same, cross or null"),
        ("age_sets.same_max=12", "same_max=12 must be below cross_min=10"),
        ("age_sets.same_max=few", "age_sets.same_max=few: expected a number of at least 0"),
        ("age_sets.matched=3", "expected true or false"),
        ("age_sets.min_references=1.5", "expected a whole number"),
        ("+age_sets.croos_min=3", "Did you mean 'cross_min'"),
    ],
)
def test_mistakes(ffhqref, argument, said):
    assert said in one_line(ffhqref("run", SETS, argument))


def test_no_ages_is_said(workspace, ffhqref):
    tables.write_table(workspace, "ages", tables.read_table(workspace, "ages").head(0))
    made = Workspace(workspace)
    config = tables.read_metadata(workspace, "references")["config"]
    made.write("references", made.read("references"), inputs=("identities", "ages"), config=config)
    line = one_line(ffhqref("degrade", f"root={workspace}", SETS))
    assert "of no target and reference both ages are known; give dataset.ages=FILE" in line
    assert "dataset.ages=FILE" in line
