"""Select the cases and methods that a command names, where the tables hold more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ffhqref.cases.cases import draw_people, pick_targets
from ffhqref.config.source import preset
from ffhqref.core.errors import ConfigError
from ffhqref.store.tables import read_metadata

if TYPE_CHECKING:
    import pandas as pd

    from ffhqref.config.context import Context
    from ffhqref.store.workspace import Workspace


def chosen_cases(context: Context, workspace: Workspace, cases: pd.DataFrame) -> pd.DataFrame:
    """Return the cases that ``benchmark`` and ``limit`` name: those that `run` would make with these keys.

    Args:
        context: of the command.
        workspace: the cases are in.
        cases: its table, or a part of it.

    Raises:
        ConfigError: a benchmark that has no cases, or an option of one that the cases were not made with.
    """
    origin = read_metadata(workspace.root, "cases")
    made: Mapping[str, Any] = origin["config"]
    _check_options(context, made)
    there = [name for name in made if name in set(cases["benchmark"])]
    names = named(context, "benchmark", there, "`ffhqref degrade`")
    kept = cases[cases["benchmark"].isin(names)]
    if context.limit is None:
        return kept
    if origin.get("limit") is not None and context.limit > origin["limit"]:
        context.reporter.say(
            f"limit={context.limit}: the cases were made with limit={origin['limit']}; degrade again for more"
        )
    parts = {name: kept[kept["benchmark"] == name] for name in names}
    targets = {name: _targets(workspace, part, made[name], origin, context.limit) for name, part in parts.items()}
    wanted = [target in targets[name] for name, target in kept[["benchmark", "target_id"]].itertuples(index=False)]
    return kept[wanted]


def named(context: Context, group: str, there: Iterable[str], remedy: str) -> list[str]:
    """Return which of the names that a workspace has a command is about: those it names, all when it names none.

    Args:
        context: of the command.
        group: of the config: benchmark, restorer or metric.
        there: names that the workspace has, in their order.
        remedy: the pipelines that make what is missing.

    Raises:
        ConfigError: a name that the workspace does not have.
    """
    there = list(there)
    chosen = list(context.config.parts(group))
    if not is_named(context, group):
        return there
    if not chosen:
        raise ConfigError(f"{group}=[]: name at least one, or leave it out for all: {', '.join(there)}")
    missing = [name for name in chosen if name not in there]
    if missing:
        raise ConfigError(
            f"{group}={missing[0]}: not in this workspace, which has {', '.join(there) or 'none'}; run {remedy} with "
            f"{group}=[{missing[0]}] first"
        )
    return [name for name in there if name in chosen]


def is_named(context: Context, group: str) -> bool:
    """Return whether the config names the parts of a group, rather than holding the default list."""
    return group not in context.config.unnamed


def _check_options(context: Context, made: Mapping[str, Any]) -> None:
    """Refuse an option of a benchmark, other than its preset's, that would need other cases than there are."""
    for name, options in context.config.parts("benchmark").items():
        usual = preset("benchmark", name).get(name, {})
        for option, value in options.items():
            if name in made and value != usual.get(option) and value != made[name].get(option):
                raise ConfigError(
                    f"benchmark.{name}.{option}={value}: the cases here were made with "
                    f"{option}={made[name].get(option)}; run `ffhqref degrade` with it again"
                )


def _targets(
    workspace: Workspace, cases: pd.DataFrame, options: Mapping[str, Any], origin: Mapping[str, Any], limit: int
) -> set[str]:
    split, people = options.get("split"), options.get("people")
    if split and people:
        references, identities = workspace.read("references"), workspace.read("identities")
        return set(draw_people(references, identities, split, min(people, limit), int(origin["seed"])))
    if not split:
        return set(sorted(cases["target_id"])[:limit])
    listed = cases[["target_id", "identity_id"]].assign(split="these", image_id=cases["target_id"])
    return set(pick_targets(listed, listed, "these", limit))
