"""Checks a reference set: a workspace's tables, or a downloaded release (``release=FOLDER``)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.cli.main import launch
from ffhqref.config.parts import check_parts
from ffhqref.config.run import read_config
from ffhqref.core.errors import ConfigError, TableError
from ffhqref.core.escape import csv_text, plain, terminal
from ffhqref.core.files import write_atomic
from ffhqref.core.progress import show
from ffhqref.reference_sets.release import read_release, release_tables
from ffhqref.reference_sets.summary import describe_findings, findings_table
from ffhqref.reference_sets.validate import Evidence, Limits, identified, validate_reference_set
from ffhqref.store.tables import read_metadata
from ffhqref.store.workspace import Workspace

from .build import dataset_of

if TYPE_CHECKING:
    import pandas as pd

    from ffhqref.reference_sets.options import ValidateOptions


def execute(config: Any) -> int:
    """Run the pipeline; return the exit status: 1 when anything was found."""
    settings = read_config(config)
    check_parts(settings)
    csv = settings.validation.csv
    if csv is not None and csv.expanduser().is_dir():
        raise ConfigError(f"validate.csv={csv}: a folder; expected a file to write")
    root = Path(settings.root).expanduser()
    workspace = Workspace(root, read_only=True) if (root / "tables").is_dir() or not settings.release else None
    known = Evidence()
    if workspace is not None and (damaged := workspace.damaged_tables()):
        sys.stderr.writelines(f"{plain(line)}\n" for line in damaged.values())
        raise TableError(f"{len(damaged)} tables cannot be used: {', '.join(damaged)}; nothing was checked")
    if workspace is not None and workspace.has("images"):
        images = workspace.read("images")
        known = Evidence.of_workspace(workspace, images)
    if settings.release:
        limits, release = settings.build.model_dump(), read_release(settings.release.expanduser())
        dataset = dataset_of(settings)
        sources = [(dataset.name, dataset.files, Evidence(images=dataset.files.keys()))]
        if known.images is not None:
            name = read_metadata(root, "images")["dataset"]["name"]
            paths = dict(zip(images["image_id"], images["path"], strict=True))
            sources.append((name, paths, known))
        release, known = identified(release, sources)
        identities, references = release_tables(release)
        for line in release.remarks():
            sys.stdout.write(f"{plain(line)}\n")
    else:
        assert workspace is not None
        identities, references = workspace.read("identities"), workspace.read("references")
        limits = read_metadata(workspace.root, "references")["config"]
    keys = ("max_distance", "min_distance", "min_references", "max_references")
    by_truth = limits.get("identity") == "truth"
    promised = Limits(**{key: limits[key] for key in keys}, known_people=by_truth)
    found = validate_reference_set(identities, references, promised, known)
    _print(found, references, known, settings.validation)
    return int(not found.empty)


def _print(found: pd.DataFrame, references: pd.DataFrame, known: Evidence, options: ValidateOptions) -> None:
    if len(found):
        show(findings_table(found, options.first), 160)
    if options.csv:
        write_atomic(options.csv.expanduser(), csv_text(found).encode())
    sys.stdout.write(terminal(describe_findings(found, references, known)))


if __name__ == "__main__":
    sys.exit(launch("validate"))
