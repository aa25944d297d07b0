"""Identities -> how much each can be trusted: chains, weakest edges, a second network, images of the worst."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ffhqref.cli.main import launch
from ffhqref.config.context import Context, embeddings_of, open_context
from ffhqref.core.escape import csv_text
from ffhqref.core.files import write_atomic
from ffhqref.core.images import read_rgb, save_png
from ffhqref.faces.stage import EmbedStage
from ffhqref.reference_sets.audit import audit_identities, calibration, embed_again, worst_identities
from ffhqref.reference_sets.contamination import true_people
from ffhqref.reference_sets.threshold import advise
from ffhqref.store.tables import read_metadata

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ffhqref.reference_sets.vectors import Embeddings


def execute(config: Any) -> int:
    """Run the pipeline; return the exit status."""
    with open_context(config) as context:
        return audit(context)


def audit(context: Context) -> int:
    """Write ``audit.csv``, contact sheets and what helps to choose a threshold; see the docs of data sets."""
    workspace, options, say = context.workspace, context.config.audit, context.reporter.say
    identities, images, first = workspace.read("identities"), workspace.read("images"), embeddings_of(workspace)
    threshold, limit = context.config.build.max_distance, options.second.max_distance
    second = _second(context, first) if options.second.name else None
    found = audit_identities(first, identities, max_distance=threshold, second=second, second_max_distance=limit)
    path = workspace.root / "audit.csv"
    write_atomic(path, csv_text(found).encode())
    of_truth = read_metadata(workspace.root, "identities")["config"].get("identity") == "truth"
    what = "of which the network sees two sides (disagreements, not merges)" if of_truth else "suspicious merges"
    say(f"audit: {len(found)} identities, {int(found['suspicious'].sum())} {what}: {path}")
    files = images.set_index("image_id")
    worst = found.head(options.worst)

    def image(name: str) -> NDArray[np.uint8]:
        return read_rgb(workspace.image(files["path"][name]), 128, sha256=files["sha256"][name])

    sheet = worst_identities(identities, worst, image)
    if sheet is not None:
        save_png(workspace.root / "audit_worst.png", sheet)
        say(f"the {len(worst)} worst to look at: {workspace.root / 'audit_worst.png'}")
    people, build = true_people(workspace), context.config.build
    for line in advise(first, identities, people, build, workspace.root, image, options.near):
        say(line)
    if second is not None and limit is not None:
        table = calibration(first, second, limit, threshold)
        write_atomic(workspace.root / "calibration.csv", csv_text(table).encode())
        if table["f1"].notna().any():
            best = table.iloc[int(table["f1"].fillna(-1.0).to_numpy().argmax())]
            say(
                f"calibration: embedder.max_distance={best['threshold']:.3f} agrees best with the second network "
                f"(F1 {best['f1']:.3f} over pairs up to {2 * threshold:g})"
            )
    return 0


def _second(context: Context, first: Embeddings) -> Embeddings:
    options, workspace = context.config.audit.second, context.workspace
    path = options.path and str(options.path)
    stage = EmbedStage(workspace.dataset_root, str(options.name), {"path": path}, options.crop)
    folder = workspace.root / "embeddings"
    return embed_again(
        workspace.read("images"), list(first.image_ids), stage, folder, engine=context.engine, progress=context.reporter
    )


if __name__ == "__main__":
    sys.exit(launch("audit"))
