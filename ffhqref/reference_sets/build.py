"""The whole builder as one pure function: embeddings in, reference set out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ffhqref.core.errors import ConfigError
from ffhqref.reference_sets.audit import audit_identities
from ffhqref.reference_sets.groups import group_identities, known_identities
from ffhqref.reference_sets.options import FARTHEST, BuildConfig
from ffhqref.reference_sets.pairs import pairs_of
from ffhqref.reference_sets.references import Exclusions, candidates, identity_pairs, order_references
from ffhqref.reference_sets.splits import SPLITS, split_identities
from ffhqref.reference_sets.vectors import Embeddings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    import pandas as pd
    from numpy.typing import ArrayLike, NDArray


NOBODY_KNOWN = "the data set tells nobody: give dataset.truth=FILE (file,person) or dataset.truth=folders"
"""Remedy where people are to be known and are not."""


@dataclass(frozen=True, eq=False)
class ReferenceSet:
    """A built reference set; the frames have the columns of the tables of their names."""

    pairs: pd.DataFrame
    """Every pair below the larger of maximum distance and grouping threshold; from truth, also all of one person."""
    identities: pd.DataFrame
    """Every image: its identity, its identity's size and its split."""
    references: pd.DataFrame
    """Every target's references, ranked."""
    audit: pd.DataFrame
    """One row an identity, most suspicious first; see `ffhqref.reference_sets.audit`."""

    def counts(self) -> dict[str, dict[str, int]]:
        """Return images with identity, identities, targets and references of each split and in all."""
        known = self.identities[self.identities["identity_id"].notna()]
        out = {}
        for split in (*SPLITS, "all"):
            images = known if split == "all" else known[known["split"] == split]
            rows = self.references if split == "all" else self.references[self.references["split"] == split]
            out[split] = {
                "images": len(images),
                "identities": int(images["identity_id"].nunique()),
                "targets": int(rows["target_id"].nunique()),
                "references": len(rows),
            }
        return out


def build_reference_set(
    image_ids: Sequence[str] | NDArray[np.object_],
    vectors: ArrayLike,
    config: BuildConfig | None = None,
    *,
    ages: Mapping[str, float] | None = None,
    attribute: Mapping[str, str] | None = None,
    exclusions: Exclusions | None = None,
    people: Mapping[str, str] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ReferenceSet:
    """Build a reference set from embeddings: pairs, identities, splits, references, audit.

    A pure function: the same images with the same vectors give the same frames, whatever their order, the device, the
    tile size or the number of threads.

    An identity can be drawn for val or test if at least one of its images satisfies the rules of a target there
    (``min_references`` direct neighbours of the same identity at ``min_distance`` or more). Its other images keep
    identity and split without being targets; they may be references.

    Args:
        image_ids: N unique ids.
        vectors: [N, D], L2-normalised.
        config: the choices; ReF-LDM's by default.
        ages: image id to years, for age_gap.
        attribute: image id to a label to balance val and test over.
        exclusions: verdicts of a manual check of val and test; train is left alone, as in the publication.
        people: image id to the person who is known to be on it, for ``identity="truth"``; an image that is not in it
            is alone.
        on_progress: told (tiles done, tiles) of the pair search.

    Raises:
        DatasetError: bad embeddings, or an exclusion of an image that does not exist.
        ConfigError: more identities asked for a split than qualify, or ``identity="truth"`` without people.
    """
    import pandas as pd

    config = config or BuildConfig()
    embeddings = Embeddings.checked(image_ids, vectors)
    if exclusions is not None:
        exclusions.check(embeddings.image_ids)
    threshold = config.max_distance if config.grouping_threshold is None else config.grouping_threshold
    pairs = pairs_of(
        embeddings,
        max(config.max_distance, threshold),
        block=config.block,
        device=config.device,
        on_progress=on_progress,
    )
    reach = config.max_distance
    if config.identity == "truth":
        if not people:
            raise ConfigError(f"build.identity=truth: {NOBODY_KNOWN}")
        reach, identities = FARTHEST, known_identities(embeddings.image_ids, people)
        both = pd.concat([pairs, identity_pairs(embeddings, identities)])
        pairs = both.drop_duplicates(["image_a", "image_b"]).sort_values(["image_a", "image_b"], ignore_index=True)
    else:
        identities = group_identities(embeddings, pairs, threshold, config.grouping)
    strict = candidates(
        embeddings,
        pairs,
        identities,
        max_distance=reach,
        min_distance=config.min_distance,
        exclusions=exclusions,
    )
    per_target = strict["target_id"].value_counts()
    able = per_target.index[per_target >= config.min_references]
    identities = split_identities(
        identities, test=config.test, val=config.val, seed=config.seed, targets=set(able), attribute=attribute
    )
    loose = candidates(embeddings, pairs, identities, max_distance=reach)
    references = _ranked(embeddings, identities, loose, strict, config, ages)
    audit = audit_identities(embeddings, identities, max_distance=config.max_distance)
    return ReferenceSet(pairs, identities, references, audit)


def _ranked(
    embeddings: Embeddings,
    identities: pd.DataFrame,
    loose: pd.DataFrame,
    strict: pd.DataFrame,
    config: BuildConfig,
    ages: Mapping[str, float] | None,
) -> pd.DataFrame:
    import pandas as pd

    split_of = dict(zip(identities["image_id"], identities["split"], strict=True))
    parts = []
    for split in SPLITS:
        source = loose if split == "train" else strict
        chosen = source[(source["target_id"].map(split_of) == split).to_numpy(bool)]
        ranked = order_references(
            embeddings,
            chosen,
            min_references=1 if split == "train" else config.min_references,
            max_references=config.train_max_references if split == "train" else config.max_references,
            ages=ages,
        )
        ranked["split"] = pd.Series([split] * len(ranked), dtype="str")
        parts.append(ranked)
    return pd.concat(parts).sort_values(["target_id", "rank"], ignore_index=True)
