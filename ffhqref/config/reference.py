"""The keys of a run as text: docs/config.md, and the help of a pipeline. ``python -m ffhqref.config.reference``."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from ffhqref.config.run import RunConfig
from ffhqref.core.options import kind_at, model_in, named, told_kind, told_value

COMMON = ("root", "device", "seed", "limit", "engine", "weights_dir", "retry_failed")
BUILD = ("dataset", "embedder", "ages", "balance", "review", "exclusions", "release", "build", "card")
DEGRADE = ("benchmark", "age_sets", "exclusions")
RESTORE = ("restorer", "dry_run")
SCORE = ("metric", "set_metric", "download")
REPORT = ("report", "merge", "trackers")
EVALUATE = ("outputs", "name", "match", "gt", "lq", "references", "benchmark", *SCORE, "report", "trackers")
EXPORT = ("format", "to", "benchmark")
SYNTHESIZE = ("synthesis", "contamination")
TRAIN = ("model", "train", "contamination", "trackers")

KEYS: dict[str, tuple[str, ...]] = {
    "run": (*BUILD, *DEGRADE, *RESTORE, *SCORE, *REPORT),
    "build": BUILD,
    "audit": ("audit", "build"),
    "degrade": DEGRADE,
    "restore": ("benchmark", *RESTORE),
    "score": ("benchmark", "restorer", *SCORE, "embedder"),
    "evaluate": EVALUATE,
    "export": EXPORT,
    "report": ("benchmark", "restorer", "metric", *REPORT),
    "train": TRAIN,
    "prepare": ("train", "contamination"),
    "synthesize": SYNTHESIZE,
    "faceme": (*BUILD, *SYNTHESIZE, *TRAIN, *DEGRADE, *RESTORE, *SCORE, *REPORT),
    "validate": ("validate", "release", "dataset"),
}
"""Pipeline to the sections that it reads, beside `COMMON`."""


def pipeline_help(name: str, summary: str) -> str:
    """Return the help of a pipeline: what it does, and its keys with kinds, defaults and meanings."""
    keys = dict.fromkeys((*KEYS[name], *COMMON))
    lines = [f"ffhqref {name}: {summary}", "", f"usage: ffhqref {name} [key=value ...]", ""]
    for key, kind, default, meaning in rows():
        if key.partition(".")[0] in keys:
            told = f"  {key}={default}" if default else f"  {key}"
            lines += [told, *textwrap.wrap(_sentence(kind, meaning), 92, initial_indent=" " * 8,
                                                            subsequent_indent=" " * 8)]  # fmt: skip
    lines += ["", "Names that can be chosen: ffhqref list. The config with every option of what is chosen:",
              f"ffhqref {name} --cfg job. Hydra's own options: --config-dir FOLDER, --multirun key=a,b."]  # fmt: skip
    return "\n".join(lines) + "\n"


def markdown() -> str:
    """Return docs/config.md."""
    lines = ["# Configuration", "", "<!-- Generated: python -m ffhqref.config.reference > docs/config.md -->", "",
             "Keys of a run, with kinds and defaults. `ffhqref run --cfg job` shows them with every option of what is",
             "chosen. Restorers, metrics, data sets, embedders and renderers have the options of their constructors.",
             "", "| key | kind | default | meaning |", "|---|---|---|---|"]  # fmt: skip
    for key, kind, default, meaning in rows():
        cells = [f"`{key}`", kind.replace(f"{key}.KEY=VALUE", "KEY=VALUE"), f"`{default}`" if default else "", meaning]
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
    return "\n".join(lines) + "\n"


def rows(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Yield (dotted key, kind, default, meaning) of a model and of those in it."""
    meanings = _meanings(model)
    for name, field in model.model_fields.items():
        if field.exclude:
            continue
        key = f"{prefix}{named(name, field)}"
        inner = model_in(field.annotation)
        default = "" if field.default in (PydanticUndefined, None) and inner else _default(field)
        meaning = meanings.get(name, "") or (inner.__doc__ or "" if inner else "")
        kind = told_kind(kind_at(model, [named(name, field)]), field.metadata).format(key=key)
        yield key, kind, "" if inner else default, " ".join(meaning.split())
        if inner is not None:
            yield from rows(inner, f"{key}.")


def _default(field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return ""
    return str(list(value)).replace("'", "") if isinstance(value, tuple) else told_value(value)


def _meanings(model: type[BaseModel]) -> dict[str, str]:
    """Return the texts that stand below the fields of a model and of those that it is made from."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)) or kind.__module__.startswith("pydantic"):
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        assert isinstance(tree, ast.ClassDef)
        for field, text in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                found[ast.unparse(field.target)] = str(text.value.value)
    return found


def _sentence(kind: str, meaning: str) -> str:
    return ". ".join(part.rstrip(".") for part in (kind, meaning) if part) + "."


if __name__ == "__main__":
    sys.stdout.write(markdown())
