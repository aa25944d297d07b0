"""Add a method to a workspace: with the cases, the seed, the metrics and the embedder that it has."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ffhqref.config.run import GROUPS, EmbedderOptions
from ffhqref.config.selection import is_named
from ffhqref.core.errors import ConfigError
from ffhqref.core.options import read_options
from ffhqref.store.tables import read_metadata

if TYPE_CHECKING:
    from ffhqref.config.context import Context
    from ffhqref.config.run import RunConfig
    from ffhqref.store.workspace import Workspace


def outputs_options(config: RunConfig) -> dict[str, Any]:
    """Return the options of the restorer `outputs` that the keys of `evaluate` say.

    Raises:
        ConfigError: no folder is named.
    """
    if config.outputs is None:
        raise ConfigError("evaluate needs a folder of images: outputs=FOLDER name=NAME")
    return {"name": "outputs", "path": str(config.outputs.expanduser().absolute()), **config.match.given()}


FOLDER = "folder"
"""Name of the benchmark of folders of one's own."""


def folder_benchmark(context: Context) -> Context | None:
    """Return a context whose benchmark is that of the folders ``gt``, ``lq`` and ``references``; None without them.

    Raises:
        ConfigError: neither these nor a workspace with cases, or references alone.
    """
    config, workspace = context.config, context.workspace
    if config.gt is None and config.lq is None:
        if config.references is not None:
            raise ConfigError("references=…: of which images? Give gt=FOLDER or lq=FOLDER, called as the outputs")
        if not workspace.has("cases"):
            raise ConfigError(
                f"{workspace.root} has no cases: name a workspace (root=FOLDER), make one (ffhqref run), or give your "
                "own images (gt=FOLDER)"
            )
        return None
    folders = {"gt_folder": config.gt, "lq_folder": config.lq, "reference_folder": config.references}
    options = {key: str(path.expanduser().absolute()) for key, path in folders.items() if path is not None}
    return replace(context, config=config.model_copy(update={"benchmark": {FOLDER: options}}))


def scored_config(config: RunConfig) -> dict[str, Any]:
    """Return the part of a config that scores depend on."""
    embedder = {key: value for key, value in config.embedder.given().items() if key != "device"}
    return {"metric": config.metric, "set_metric": list(config.set_metric), "embedder": embedder}


def with_recorded(context: Context) -> Context:
    """Return a context that names everything in the workspace: its seed, and the metrics and embedder of its scores.

    Metrics that the command names come on top.
    """
    workspace, config = context.workspace, context.config
    metric, set_metric, embedder = _scored(workspace)
    named = config.metric if is_named(context, "metric") or not metric else {}
    update = {
        "seed": int(read_metadata(workspace.root, "cases").get("seed", config.seed)),
        "metric": {**metric, **named},
        "set_metric": tuple(dict.fromkeys((*set_metric, *config.set_metric))),
        "embedder": read_options(EmbedderOptions, embedder, "embedder") if embedder else config.embedder,
        "unnamed": GROUPS,
    }
    return replace(context, config=config.model_copy(update=update))


def _scored(workspace: Workspace) -> tuple[dict[str, Any], list[str], dict[str, Any]]:
    """Return the metrics, the metrics of whole sets and the embedder of a workspace's scores."""
    built = read_metadata(workspace.root, "embeddings").get("config", {})
    if not workspace.has("scores"):
        return {}, [], built
    recorded = read_metadata(workspace.root, "scores")["config"]
    return recorded["metric"], recorded["set_metric"], recorded["embedder"]
