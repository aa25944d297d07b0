"""A reference set as a folder in ReF-LDM's layout: export, import, comparison.

::

    reference_mapping/{train,val,test}_references.csv
    id_based_ffhq_split/{train,val,test}_image.txt
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import DatasetError
from ffhqref.core.hashing import content_key, sha256_bytes
from ffhqref.datasets.match import ImageMatcher, without_ending
from ffhqref.reference_sets.formats import (
    ImageList,
    MappingRow,
    ReferenceMapping,
    image_id_of,
    image_list_bytes,
    mapping_bytes,
    read_image_list,
    read_mapping,
    write_image_list,
    write_mapping,
)
from ffhqref.reference_sets.groups import component_labels, number_groups
from ffhqref.reference_sets.splits import SPLITS
from ffhqref.reference_sets.vectors import Embeddings, stored

if TYPE_CHECKING:
    import pandas as pd

    from ffhqref.reference_sets.build import ReferenceSet


@dataclass(frozen=True)
class Release:
    """The files of a release, by split; a split that has no file is absent."""

    mappings: dict[str, ReferenceMapping]
    images: dict[str, ImageList]
    ids: Mapping[str, str] = field(default_factory=dict)
    """File name in the lists to image id; a name that is absent has the id that it spells (`image_id_of`)."""

    @property
    def digest(self) -> str:
        """Content hash over the bytes of all files."""
        mappings = {split: sha256_bytes(mapping_bytes(mapping)) for split, mapping in self.mappings.items()}
        return content_key(
            mappings, {split: sha256_bytes(image_list_bytes(found)) for split, found in self.images.items()}
        )

    def image_id(self, name: str) -> str:
        """Return the image id of a file name in the lists."""
        return self.ids.get(name) or image_id_of(name)

    @property
    def names(self) -> list[str]:
        """Every image that the lists name, sorted."""
        rows = [row for mapping in self.mappings.values() for row in mapping.rows]
        listed = {name for images in self.images.values() for name in images.images}
        return sorted(listed | {name for row in rows for name in (row.gt_image, *row.references)})

    @property
    def targets(self) -> dict[str, str]:
        """Target id to split, targets without a reference too."""
        return {self.image_id(row.gt_image): split for split, found in self.mappings.items() for row in found.rows}

    @property
    def lq_names(self) -> dict[str, str]:
        """Target id to the name of its low-quality file, where that is not the target's own."""
        rows = [row for mapping in self.mappings.values() for row in mapping.rows]
        return {
            self.image_id(row.gt_image): row.lq_image
            for row in rows
            if row.lq_image is not None and row.lq_image != row.gt_image
        }

    def matched(self, files: Mapping[str, str]) -> Release:
        """Return the release with the ids of a data set's images, for names that are among them."""
        matcher = ImageMatcher(files)
        found = {name: matcher.find(name) for name in self.names}
        return replace(self, ids={**self.ids, **{name: image_id for name, image_id in found.items() if image_id}})

    def remarks(self) -> list[str]:
        """Return what a user must know of the lists: lines without a case, columns that are used or not."""
        lines = []
        for split, mapping in self.mappings.items():
            empty = [row for row in mapping.rows if not row.references]
            if empty:
                lines.append(
                    f"release, {split}: {len(empty)} of {len(mapping.rows)} targets have no reference and are no "
                    f"targets here, first '{empty[0].gt_image}' in line {empty[0].line}"
                )
            other = [row for row in mapping.rows if row.lq_image not in (None, row.gt_image)]
            if other:
                lines.append(
                    f"release, {split}: {len(other)} targets have a low-quality file of another name, first "
                    f"'{other[0].lq_image}'; benchmarks with an lq_folder take these"
                )
            twice = [row for row in mapping.rows if len({*map(self.image_id, row.references)}) < len(row.references)]
            if twice:
                lines.append(
                    f"release, {split}: {len(twice)} targets list one reference twice, and so methods are given it "
                    f"twice, first '{twice[0].gt_image}' in line {twice[0].line}"
                )
            if "weight" in mapping.columns:
                lines.append(f"release, {split}: the column weight is not used")
        return lines


def make_release(identities: pd.DataFrame, references: pd.DataFrame, names: Mapping[str, str] | None = None) -> Release:
    """Return the files of a reference set.

    Rows are sorted by target, references in the order of their rank. Train has the columns gt_image and ref_image,
    val and test lq_image too, equal to gt_image, as in the published files. The image lists hold every image of a
    split, with references or not.

    Args:
        identities: image_id, split.
        references: table ``references``.
        names: image id to file name; ``<id>.png``, as in FFHQ, when None.

    Raises:
        DatasetError: an image without name.
    """

    def name(image_id: str) -> str:
        if names is None:
            return f"{image_id}.png"
        if image_id not in names:
            raise DatasetError(f"release: image '{image_id}' has no file name")
        return names[image_id]

    mappings, images = {}, {}
    ids = {name(image_id): image_id for image_id in identities["image_id"]}
    ordered = references.sort_values(["target_id", "rank"])
    for split in SPLITS:
        listed: dict[str, list[str]] = {}
        part = ordered[ordered["split"] == split]
        for target, reference in zip(part["target_id"], part["reference_id"], strict=True):
            listed.setdefault(target, []).append(name(reference))
        columns = ("gt_image", "ref_image") if split == "train" else ("gt_image", "lq_image", "ref_image")
        rows = tuple(
            MappingRow(name(target), tuple(found), None if split == "train" else name(target))
            for target, found in listed.items()
        )
        mappings[split] = ReferenceMapping(rows, columns)
        members = sorted(identities.loc[(identities["split"] == split).to_numpy(bool), "image_id"])
        images[split] = ImageList(tuple(name(image_id) for image_id in members))
    return Release(mappings, images, ids)


def write_release(folder: str | Path, release: Release) -> None:
    """Write the files of a release under ``folder``, each atomically."""
    for split, mapping in release.mappings.items():
        write_mapping(Path(folder) / "reference_mapping" / f"{split}_references.csv", mapping)
    for split, images in release.images.items():
        write_image_list(Path(folder) / "id_based_ffhq_split" / f"{split}_image.txt", images)


def read_release(folder: str | Path, known: Mapping[str, str] | Collection[str] | None = None) -> Release:
    """Read a release: FFHQ-Ref's folder, or CelebA-Test-Ref's, which has one mapping and no subfolder.

    Args:
        folder: where ``reference_mapping`` is, or the CSV files themselves.
        known: images of the data set, id to path or ids alone; None: any name is taken.

    Raises:
        DatasetError: no mapping at all, a file that `read_mapping` or `read_image_list` refuses, or, of a known data
            set, a target among its own references.
    """
    root = Path(folder)
    matcher = None if known is None else ImageMatcher(known)
    mappings, images = {}, {}
    for split in SPLITS:
        for path in (root / "reference_mapping" / f"{split}_references.csv", root / f"{split}_references.csv"):
            if path.is_file():
                mappings[split] = read_mapping(path, matcher)
                break
        path = root / "id_based_ffhq_split" / f"{split}_image.txt"
        if path.is_file():
            images[split] = read_image_list(path, matcher)
    if not mappings:
        raise DatasetError(
            f"{root}: no reference mapping; expected reference_mapping/{{train,val,test}}_references.csv or at least "
            "test_references.csv"
        )
    made = Release(mappings, images)
    if known is None:
        return replace(made, ids=_spelled(made.names))
    made = made.matched(known if isinstance(known, Mapping) else {image_id: image_id for image_id in known})
    for split, mapping in mappings.items():
        for row in mapping.rows:
            if made.image_id(row.gt_image) in map(made.image_id, row.references):
                raise DatasetError(
                    f"{root}, {split}_references.csv, line {row.line}: '{row.gt_image}' is among its own references, "
                    "which would give the restorers their ground truth; take it out of the list"
                )
    return made


def _spelled(names: list[str]) -> dict[str, str]:
    """Return an id for each name of an unknown data set: its stem, or its path where two names share a stem."""
    stems = Counter(map(image_id_of, names))
    return {name: without_ending(name) for name in names if stems[image_id_of(name)] > 1}


def release_tables(
    release: Release, embeddings: Embeddings | None = None, ages: Mapping[str, float] | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the tables ``identities`` and ``references`` of a release.

    Identities are the connected components of targets and their references. In val and test, where near-duplicates
    and rejected references are not listed, one person may so appear as two. Images of the lists that are no target
    and no reference have no identity.

    Args:
        release: from `read_release`.
        embeddings: for the distances, which a release does not hold; NaN where an image has none.
        ages: image id to years, for age_gap.

    Raises:
        DatasetError: an image that is in two splits.
    """
    import pandas as pd

    rows = []
    split_of: dict[str, str] = {}

    def place(image_id: str, split: str, where: str) -> None:
        if split_of.setdefault(image_id, split) != split:
            raise DatasetError(f"release: image '{image_id}' is in {split_of[image_id]} and in {split} ({where})")

    for split, images in release.images.items():
        for name in images.images:
            place(release.image_id(name), split, f"{split}_image.txt")
    for split, mapping in release.mappings.items():
        for row in mapping.rows:
            target = release.image_id(row.gt_image)
            where = f"{split}_references.csv, line {row.line}"
            place(target, split, where)
            for rank, name in enumerate(row.references):
                place(release.image_id(name), split, where)
                rows.append((target, release.image_id(name), rank, split))
    references = pd.DataFrame(rows, columns=["target_id", "reference_id", "rank", "split"])
    for column in ("target_id", "reference_id", "split"):
        references[column] = references[column].astype("str")
    references["rank"] = references["rank"].astype(np.int32)
    distance = np.full(len(references), np.nan, np.float32)
    if embeddings is not None:
        distance = stored(embeddings.known_distances(references["target_id"], references["reference_id"]))
    years = ages or {}
    gaps = [years.get(r, np.nan) - years.get(t, np.nan) for t, r, *_ in rows]
    references.insert(3, "distance", distance)
    references.insert(4, "age_gap", np.array(gaps, np.float32))

    image_ids = np.empty(len(split_of), dtype=object)
    image_ids[:] = sorted(split_of)
    index = {name: i for i, name in enumerate(image_ids)}
    a = np.array([index[t] for t, *_ in rows], dtype=np.intp)
    b = np.array([index[r] for _, r, *_ in rows], dtype=np.intp)
    identities = number_groups(image_ids, component_labels(len(image_ids), a, b))
    identities["split"] = pd.Series([split_of[name] for name in image_ids], dtype="str")
    return identities, references.sort_values(["target_id", "rank"], ignore_index=True)


def compare_references(ours: pd.DataFrame, theirs: pd.DataFrame) -> pd.DataFrame:
    """Return how two ``references`` tables differ, one row a difference.

    Returns:
        kind, target_id, reference_id (null where the target as a whole is meant), ours, theirs (null: absent there):
        ``target`` (its split in each), ``reference`` (its rank in each, one of them null), ``order`` (the references
        in each, when both have the same ones in another order). Sorted by target_id, kind and reference_id.
    """
    import pandas as pd

    def by_target(frame: pd.DataFrame) -> dict[str, tuple[str, list[str]]]:
        found: dict[str, tuple[str, list[str]]] = {}
        ordered = frame.sort_values(["target_id", "rank"])
        for target, reference, split in zip(
            ordered["target_id"], ordered["reference_id"], ordered["split"], strict=True
        ):
            found.setdefault(target, (split, []))[1].append(reference)
        return found

    left, right = by_target(ours), by_target(theirs)
    rows: list[tuple[str, str, str | None, str | None, str | None]] = []
    for target in sorted(left.keys() | right.keys()):
        split_a, list_a = left.get(target, (None, []))
        split_b, list_b = right.get(target, (None, []))
        if split_a != split_b:
            rows.append(("target", target, None, split_a, split_b))
        if split_a is None or split_b is None:
            continue
        for reference in sorted(set(list_a) ^ set(list_b)):
            rank_a = str(list_a.index(reference)) if reference in list_a else None
            rank_b = str(list_b.index(reference)) if reference in list_b else None
            rows.append(("reference", target, reference, rank_a, rank_b))
        if set(list_a) == set(list_b) and list_a != list_b:
            rows.append(("order", target, None, " ".join(list_a), " ".join(list_b)))
    frame = pd.DataFrame(rows, columns=["kind", "target_id", "reference_id", "ours", "theirs"])
    return frame.sort_values(["target_id", "kind", "reference_id"], ignore_index=True, kind="stable")


def with_unlisted(identities: pd.DataFrame, image_ids: Collection[str]) -> pd.DataFrame:
    """Return the identities of a release over a whole data set.

    Args:
        identities: from `release_tables`.
        image_ids: every image of the data set; those that the release does not name get neither identity nor split.
    """
    import pandas as pd

    unlisted = sorted(set(image_ids) - set(identities["image_id"]))
    more = pd.DataFrame({"image_id": pd.Series(unlisted, dtype="str")})
    more["identity_id"] = pd.array([pd.NA] * len(more), dtype="Int32")
    more["size"] = np.ones(len(more), np.int32)
    more["split"] = pd.Series([None] * len(more), dtype="str")
    return pd.concat([identities, more] if len(more) else [identities]).sort_values("image_id", ignore_index=True)


def imported(
    release: Release, built: ReferenceSet, embeddings: Embeddings, ages: Mapping[str, float]
) -> tuple[ReferenceSet, pd.DataFrame]:
    """Put a release in the place of the set that was built from the same images.

    Args:
        release: from `read_release`.
        built: what our builder makes of the images; its pairs are kept, its audit is not, which is of our groups.
        embeddings: of all images.
        ages: years by image id.

    Returns:
        The release as a reference set over all images, and `compare_references` of the built one and it.

    Raises:
        DatasetError: see `release_tables`.
    """
    identities, references = release_tables(release, embeddings, ages)
    listed = with_unlisted(identities, embeddings.image_ids.tolist())
    made = replace(built, identities=listed, references=references, audit=built.audit.head(0))
    return made, compare_references(built.references, references)


def summarise_differences(ours: pd.DataFrame, theirs: pd.DataFrame, differences: pd.DataFrame) -> pd.DataFrame:
    """Return how far two ``references`` tables agree, one row a split of theirs.

    Args:
        ours: table ``references``.
        theirs: table ``references``.
        differences: `compare_references` of the two.

    Returns:
        split; targets (theirs); elsewhere (targets that are in another split in ours); absent (no targets in ours);
        equal (of the rest: the same references in the same order), reordered (the same in another order), changed
        (other references); ours_only (targets of ours in this split that are none in theirs).
    """
    import pandas as pd

    mine = ours.drop_duplicates("target_id").set_index("target_id")["split"].to_dict()
    listed = theirs.drop_duplicates("target_id").set_index("target_id")["split"].to_dict()
    changed = set(differences.loc[differences["kind"] == "reference", "target_id"])
    reordered = set(differences.loc[differences["kind"] == "order", "target_id"])
    rows = []
    for split in SPLITS:
        targets = {name for name, where in listed.items() if where == split}
        shared = {name for name in targets if mine.get(name) == split}
        absent = len(targets - mine.keys())
        other, moved = len(shared & changed), len(shared & reordered)
        only = sum(where == split and name not in listed for name, where in mine.items())
        if targets or only:
            rows.append(
                {
                    "split": split, "targets": len(targets), "elsewhere": len(targets) - len(shared) - absent,
                    "absent": absent, "equal": len(shared) - other - moved, "reordered": moved, "changed": other,
                    "ours_only": only,
                }
            )  # fmt: skip
    columns = ["split", "targets", "elsewhere", "absent", "equal", "reordered", "changed", "ours_only"]
    return pd.DataFrame(rows, columns=columns)
