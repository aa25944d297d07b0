"""References -> low-quality pictures of every benchmark, and its cases."""

from __future__ import annotations

import sys
from typing import Any

from ffhqref.cases import make_cases, pick_targets
from ffhqref.cli import launch
from ffhqref.degradation.stage import DegradeStage
from ffhqref.errors import ConfigError, DatasetError, did_you_mean

from ._common import Context, open_context

BENCHMARK_KEYS = ("degradation", "split", "references")


def execute(config: Any) -> int:
    """Run the pipeline; return the exit status."""
    with open_context(config) as context:
        return degrade(context)


def degrade(context: Context) -> int:
    """Write ``degradations`` and ``cases``."""
    import pandas as pd

    workspace = context.workspace
    benchmarks = checked_benchmarks(context.config["benchmark"])
    stage = DegradeStage(workspace.root)
    for options in benchmarks.values():
        stage.preset(options["degradation"])
    images, identities, references = (workspace.read(name) for name in ("images", "identities", "references"))
    ages = workspace.read("ages").dropna().set_index("image_id")["age"].to_dict()
    sha256 = dict(zip(images["image_id"], images["sha256"], strict=True))
    path = dict(zip(images["image_id"], images["path"], strict=True))

    targets: dict[str, list[str]] = {}
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for name, options in benchmarks.items():
        targets[name] = pick_targets(references, identities, options["split"], context.limit)
        if not targets[name]:
            raise DatasetError(f"benchmark '{name}': split '{options['split']}' has no target; see `ffhqref build`")
        level = options["degradation"]
        for target in targets[name]:
            rows[level, target] = {
                "image_id": target,
                "path": str(workspace.image(path[target])),
                "sha256": sha256[target],
                "level": level,
                "seed": context.seed,
                "out_path": f"lq/{level}/{target}.png",
            }
    made = pd.DataFrame(context.map(stage, list(rows.values())))
    failed = made[made["error"].notna()]
    for row in failed.head(5).itertuples():
        context.reporter.say(f"not degraded: {row.target_id} ({row.level}): {row.error}")
    made = made.drop(columns=["file_size", "file_mtime_ns"])
    origin: dict[str, Any] = {"config": context.config["benchmark"], "seed": context.seed, "limit": context.limit}
    workspace.write("degradations", made, inputs=("references",), **origin)

    good = made[made["error"].isna()]
    lq = {(row.level, row.target_id): row.lq_path for row in good.itertuples()}
    cases = [
        make_cases(
            name,
            [target for target in targets[name] if (options["degradation"], target) in lq],
            images=images,
            identities=identities,
            references=references,
            ages=ages,
            lq_paths={target: path for (level, target), path in lq.items() if level == options["degradation"]},
            max_references=options["references"],
        )
        for name, options in benchmarks.items()
    ]
    workspace.write("cases", pd.concat(cases), inputs=("degradations", "references", "ages"), **origin)
    counts = ", ".join(f"{name} {len(frame)}" for name, frame in zip(benchmarks, cases, strict=True))
    context.reporter.say(f"cases: {counts}")
    return int(not failed.empty)


def checked_benchmarks(config: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the benchmarks of the config, their keys and values checked."""
    if not config:
        raise ConfigError("no benchmark chosen: benchmark=[moderate,severe]")
    for name, options in config.items():
        missing, foreign = set(BENCHMARK_KEYS) - set(options), set(options) - set(BENCHMARK_KEYS)
        if missing or foreign:
            raise ConfigError(f"benchmark '{name}': missing keys {sorted(missing)}, unknown keys {sorted(foreign)}")
        if options["split"] not in ("train", "val", "test"):
            hint = did_you_mean(str(options["split"]), ("train", "val", "test"))
            raise ConfigError(f"benchmark '{name}': unknown split '{options['split']}'.{hint} Known: train, val, test")
        most = options["references"]
        if most is not None and (not isinstance(most, int) or most < 1):
            raise ConfigError(
                f"benchmark '{name}': references={most}, expected a number of at least 1, or null for all"
            )
    return config


if __name__ == "__main__":
    sys.exit(launch("degrade"))
