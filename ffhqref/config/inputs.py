"""Refuses a run whose output lies among its own input: the next run would read it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError

if TYPE_CHECKING:
    from ffhqref.config.run import RunConfig

TABLES = ("ages", "attributes", "truth", "json")
"""Options of a data set that name tables."""

READ_AGAIN = "the next run would read its own output"


def check_inputs(config: RunConfig) -> None:
    """Refuse folders of images that hold what the run writes, and workspaces and releases that are read and written.

    Raises:
        ConfigError: one line with both folders and what to choose instead.
    """
    root = _real(config.root)
    searched = {key: path for key, path in _searched(config).items() if path.expanduser().is_dir()}
    for key, path in _folders(config).items():
        holders = {name: folder for name, folder in searched.items() if _holds(_real(folder), _real(path))}
        if holders:
            name = min(holders, key=lambda name: len(_real(holders[name]).parts))
            other = _beside(path, _real(holders[name]))
            raise ConfigError(
                f"{key}={path} lies in {name}={holders[name]}, where images are read: {READ_AGAIN}; choose a folder "
                f"outside it, such as {key}={other}"
            )
    for name, place in searched.items():
        inner = next((path for path in _inside(config, root) if _holds(_real(place), path)), None)
        if inner is not None:
            raise ConfigError(
                f"{name}={place} holds {inner}, which this run writes: {READ_AGAIN}; copy the images to another "
                "folder, or choose another root"
            )
    for merged in config.merge or ():
        if _real(merged) == root:
            raise ConfigError(
                f"root={config.root} is one of the workspaces to merge, whose own report would be overwritten; choose "
                f"another folder, such as root={_beside(Path(config.root), root, 'merged')}"
            )
    if config.release and _real(config.release).is_relative_to(root / "FFHQ-Ref"):
        raise ConfigError(
            f"release={config.release} is where root={config.root} writes its own lists: {READ_AGAIN}; choose another "
            f"folder, such as root={_beside(Path(config.root), root, 'imported')}"
        )


def _searched(config: RunConfig) -> dict[str, Path]:
    """Return the folders that are searched for images, by the key that names them."""
    given: dict[str, Any] = {
        f"dataset.{key}": value for key, value in config.dataset.options.items() if key not in TABLES
    }
    for name, options in config.parts("benchmark").items():
        keys = ("lq_folder", "gt_folder", "reference_folder", "exported")
        given |= {f"benchmark.{name}.{key}": options.get(key) for key in keys}
        if options.get("reference_list") and not options.get("reference_folder"):
            given[f"benchmark.{name}.reference_list"] = Path(str(options["reference_list"])).parent
    for label, options in config.parts("restorer").items():
        if options.get("name", label) == "outputs":
            given[f"restorer.{label}.path"] = options.get("path")
    given["train.faces.path"] = config.train.faces.path
    given |= {"outputs": config.outputs, "gt": config.gt, "lq": config.lq, "references": config.references}
    for path in config.contamination.benchmarks:
        if not (path.expanduser() / "tables").is_dir():
            given["contamination.benchmarks"] = path
    return {key: Path(value) for key, value in given.items() if isinstance(value, (str, Path)) and str(value)}


def _folders(config: RunConfig) -> dict[str, Path]:
    """Return the folders that the config gives to output, by key."""
    found = {"root": Path(config.root)}
    if config.to is not None:
        found["to"] = config.to
    if "folder" in config.train.model_fields_set:
        found["train.folder"] = config.train.folder
    if config.report.folder:
        found["report.folder"] = Path(config.report.folder)
    for label, options in config.parts("restorer").items():
        if options.get("scratch"):
            found[f"restorer.{label}.scratch"] = Path(str(options["scratch"]))
    return found


def _inside(config: RunConfig, root: Path) -> Iterator[Path]:
    """Yield the folders of images in the workspace that the run writes."""
    yield from (root / "outputs" / name for name in ([config.name] if config.outputs else config.parts("restorer")))
    yield from (root / folder / name for name in config.parts("benchmark") for folder in ("lq", "gt", "references"))
    if config.dataset.options.get("aligned") is False:
        yield root / "aligned"


def _real(path: str | Path) -> Path:
    """Return an absolute path, links followed."""
    return Path(path).expanduser().resolve()


def _holds(folder: Path, output: Path) -> bool:
    """Return whether a search of a folder finds an output; hidden folders are not searched."""
    return output.is_relative_to(folder) and not any(part.startswith(".") for part in output.relative_to(folder).parts)


def _beside(given: Path, folder: Path, name: str = "") -> str:
    """Return a path beside a folder, relative where the given one is."""
    path = folder.parent / (name or (given.name if given.name != folder.name else f"{given.name}-workspace"))
    return str(path) if given.expanduser().is_absolute() else os.path.relpath(path)
