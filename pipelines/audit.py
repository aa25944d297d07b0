"""Identities -> how much each can be trusted: chains, weakest edges, a second network, pictures of the worst."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.cli.main import launch
from ffhqref.core.errors import TableError
from ffhqref.core.images import read_rgb, save_png, write_atomic
from ffhqref.datasets.stage import ImageRow
from ffhqref.faces.stage import EmbedStage
from ffhqref.faces.store import embed_images
from ffhqref.reference_sets.audit import audit_identities, calibrate_threshold, contact_sheet
from ffhqref.reference_sets.pairs import pairs_of
from ffhqref.reference_sets.vectors import Embeddings

from ._common import Context, embeddings_of, open_context, rows_of

if TYPE_CHECKING:
    import pandas as pd


def execute(config: Any) -> int:
    """Run the pipeline; return the exit status."""
    with open_context(config) as context:
        return audit(context)


def audit(context: Context) -> int:
    """Write ``audit.csv`` and ``audit_worst.png``, and with a second network ``calibration.csv``."""
    workspace, options, say = context.workspace, context.config.audit, context.reporter.say
    identities, first = workspace.read("identities"), embeddings_of(workspace)
    second, limit = None, options.second.max_distance
    if options.second.name:
        second = _second(context, first.image_ids.tolist())
    threshold = context.config.build.max_distance
    found = audit_identities(first, identities, max_distance=threshold, second=second, second_max_distance=limit)
    path = workspace.root / "audit.csv"
    write_atomic(path, found.to_csv(index=False, lineterminator="\n").encode())
    say(f"audit: {len(found)} identities, {int(found['suspicious'].sum())} suspicious merges: {path}")
    _sheet(context, identities, found.head(options.worst))
    if second is not None and limit is not None:
        _calibrate(context, first, second, limit)
    return 0


def _second(context: Context, image_ids: list[str]) -> Embeddings:
    options = context.config.audit.second
    path = options.path and str(options.path)
    stage = EmbedStage(context.workspace.dataset_root, str(options.name), {"path": path}, options.crop)
    images = context.workspace.read("images").set_index("image_id").loc[image_ids].reset_index()
    rows = [ImageRow(row.image_id, row.path, row.sha256) for row in rows_of(images)]
    folder = context.workspace.root / "embeddings"
    made = embed_images(stage, rows, folder, engine=context.engine, progress=context.reporter)
    if made.errors:
        name, reason = next(iter(made.errors.items()))
        raise TableError(f"audit: {len(made.errors)} pictures cannot be embedded again, first {name}: {reason}")
    return Embeddings.checked(made.image_ids, made.vectors)


def _sheet(context: Context, identities: pd.DataFrame, worst: pd.DataFrame) -> None:
    images = context.workspace.read("images")
    path = dict(zip(images["image_id"], images["path"], strict=True))
    pictures, labels = [], []
    for row in rows_of(worst):
        members = identities.loc[identities["identity_id"] == row.identity_id, "image_id"]
        pictures.append([read_rgb(context.workspace.image(path[name]), 128) for name in members])
        labels.append(
            f"identity {row.identity_id}: gap {row.gap:.3f}, diameter {row.diameter:.3f}, "
            f"weakest edge {row.weakest_a} - {row.weakest_b} at {row.weakest_edge:.3f}"
        )
    if pictures:
        target = context.workspace.root / "audit_worst.png"
        save_png(target, contact_sheet(pictures, labels))
        context.reporter.say(f"the {len(pictures)} worst to look at: {target}")


def _calibrate(context: Context, first: Embeddings, second: Embeddings, limit: float) -> None:
    """Ask at which threshold the run's network agrees best with the second one."""
    widest = 2.0 * context.config.build.max_distance
    pairs = pairs_of(first, min(widest, 1.9))
    left, right = first.positions(pairs["image_a"]), first.positions(pairs["image_b"])
    theirs = second.pair_distances(second.positions(pairs["image_a"]), second.positions(pairs["image_b"]))
    steps = np.linspace(0.02 * widest, widest, 50)
    found = calibrate_threshold(first.pair_distances(left, right), theirs, limit, steps)
    write_atomic(context.workspace.root / "calibration.csv", found.to_csv(index=False, lineterminator="\n").encode())
    if found["f1"].notna().any():
        best = found.iloc[int(found["f1"].fillna(-1.0).to_numpy().argmax())]
        context.reporter.say(
            f"calibration: embedder.max_distance={best['threshold']:.3f} agrees best with the second network "
            f"(F1 {best['f1']:.3f} over pairs up to {widest:g})"
        )


if __name__ == "__main__":
    sys.exit(launch("audit"))
