"""Small tables that the tests of this room share."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

EVIL = "<script>document.title='owned'</script>"


def make_tables(values, *, benchmark="severe", people=None, seconds=1.0):
    """Tables from ``{method: {metric: [one value a case or None]}}``; None is a failed restoration."""
    n = len(next(iter(next(iter(values.values())).values())))
    people = list(range(n)) if people is None else people
    ids = [f"{i:05d}" for i in range(n)]
    cases = pd.DataFrame(
        {
            "benchmark": benchmark,
            "case_id": ids,
            "target_id": ids,
            "identity_id": pd.array(people, "Int32"),
            "lq_path": [f"lq/{benchmark}/{i}.png" for i in ids],
            "gt_path": [f"gt/{i}.png" for i in ids],
            "reference_paths": [[f"ref/{people[k]}.png"] * (1 + k % 3) for k in range(n)],
            "age": np.full(n, 30.0, np.float32),
            "age_gap": np.arange(n, dtype=np.float32) * 4,
        }
    )
    scores, restorations = [], []
    for method, metrics in values.items():
        dead = [all(column[k] is None for column in metrics.values()) for k in range(n)]
        for k, case_id in enumerate(ids):
            if method != "ground-truth":
                restorations.append(
                    {
                        "method": method, "benchmark": benchmark, "case_id": case_id,
                        "output_path": None if dead[k] else f"out/{method}/{benchmark}/{case_id}.png",
                        "output_sha256": None if dead[k] else "0" * 64, "status": "failed" if dead[k] else "ok",
                        "error": f"RuntimeError: {EVIL}" if dead[k] else None, "seconds": seconds,
                        "peak_memory_bytes": None, "device": "cpu",
                    }
                )  # fmt: skip
            for metric, column in metrics.items():
                value = column[k]
                scores.append((method, benchmark, case_id, metric, value, "failed" if value is None else "ok"))
    columns = ["method", "benchmark", "case_id", "metric", "value", "status"]
    return SimpleNamespace(
        scores=pd.DataFrame(scores, columns=columns).astype({"value": float}),
        cases=cases,
        restorations=pd.DataFrame(restorations),
    )


def report_of(made, directions, **options):
    """A report of made tables."""
    from ffhqref.leaderboard.options import ReportOptions
    from ffhqref.leaderboard.report import Report
    from ffhqref.leaderboard.report_data import MetricFacts

    fields = {name: options.pop(name) for name in list(options) if name not in ReportOptions.model_fields}
    options.setdefault("n_bootstrap", 200)
    metrics = {name: MetricFacts(higher) for name, higher in directions.items()}
    return Report(
        "made", made.scores, made.cases, made.restorations, metrics, options=ReportOptions(**options), **fields
    )


@pytest.fixture
def tables():
    """The maker of tables."""
    return make_tables


@pytest.fixture
def evil():
    """A name that must stay text wherever it is shown."""
    return EVIL


def _report(root, *, n=6, methods=("lq", "good", EVIL), n_failed=1, size=64):
    """A small report with real images under ``root``."""
    from ffhqref.core.images import save_png
    from ffhqref.leaderboard.methods import MethodFacts
    from ffhqref.leaderboard.options import ReportOptions
    from ffhqref.leaderboard.published import BenchmarkInfo
    from ffhqref.leaderboard.report import Report
    from ffhqref.leaderboard.report_data import MetricFacts
    from ffhqref.restorers.base import RestorerInfo

    rng = np.random.default_rng(0)
    parts = []
    for shift, benchmark in enumerate(("moderate", "severe")):
        values = {
            method: {
                "psnr": [*(rng.normal(25 + j - 3 * shift, 1, n))],
                "niqe": [*(rng.normal(6 - j + shift, 0.5, n))],
            }
            for j, method in enumerate(methods)
        }
        for k in range(n_failed):
            for metric in ("psnr", "niqe"):
                values[methods[-1]][metric][k] = None
        values["ground-truth"] = {"niqe": [*rng.normal(3, 0.3, n)]}
        parts.append(make_tables(values, benchmark=benchmark, people=[k // 2 for k in range(n)]))
    scores, cases, restorations = (
        pd.concat([getattr(part, name) for part in parts], ignore_index=True)
        for name in ("scores", "cases", "restorations")
    )

    def place(path):
        return str(root / path.replace("<", "_").replace(">", "_").replace("/script", "_"))

    for name in ("lq_path", "gt_path"):
        cases[name] = cases[name].map(place)
    cases["reference_paths"] = cases["reference_paths"].map(lambda paths: [place(path) for path in paths])
    restorations["output_path"] = restorations["output_path"].map(place, na_action="ignore")
    paths = {*cases["lq_path"], *cases["gt_path"], *restorations["output_path"].dropna()}
    paths |= {path for row in cases["reference_paths"] for path in row}
    for k, path in enumerate(sorted(paths)):
        image = np.zeros((size, size, 3), np.uint8)
        image[:, :, k % 3] = np.linspace(0, 255, size, dtype=np.uint8)
        save_png(path, image)
    return Report(
        name=f"Report {EVIL}",
        scores=scores,
        cases=cases,
        restorations=restorations,
        metrics={
            "psnr": MetricFacts(True, "psnr|rgb|v1"),
            "niqe": MetricFacts(False, "niqe|luma|v1"),
            "lpips": MetricFacts(False, "lpips|vgg"),
        },
        benchmarks={b: BenchmarkInfo(b, "FFHQ-Ref test", b.title(), 5, n, "FFHQ") for b in ("moderate", "severe")},
        methods={
            m: MethodFacts(RestorerInfo(m, summary=f"about {m}", trained_on=("FFHQ",) if m == "good" else ()))
            for m in methods
        },
        provenance={"scores": {"config": {"seed": 1}, "note": EVIL}},
        options=ReportOptions(n_bootstrap=50),
    )


@pytest.fixture(scope="session")
def make_report():
    """The maker of reports."""
    return _report
