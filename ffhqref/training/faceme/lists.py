"""Who may be trained on, with which references: ``train.json`` as published, and how it is made.

One JSON object a line: ``target`` (an image), ``target_emb`` ([ArcFace file, CLIP file] of the target itself) and
``ref_emb`` ([ArcFace files, CLIP files] of its references, paired by position).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ffhqref.core.errors import ConfigError, DatasetError
from ffhqref.core.files import read_regular, write_atomic
from ffhqref.core.parsing import parsing
from ffhqref.training.faceme.features import KINDS

References = Literal["synthetic", "real", "both"]


@dataclass(frozen=True)
class Feature:
    """The two feature files of one image."""

    identity: str
    """ArcFace vector."""
    clip: str
    """CLIP features."""


@dataclass(frozen=True)
class Sample:
    """A target, its own features and those of its references."""

    target: str
    own: Feature
    references: tuple[Feature, ...] = ()

    @property
    def name(self) -> str:
        """Name of the image, which keys its draws wherever the files lie."""
        return Path(self.own.identity).stem


@dataclass(frozen=True)
class Missing:
    """A target that cannot be trained on, and why."""

    image_id: str
    reason: str


def write_samples(path: str | Path, samples: Iterable[Sample]) -> None:
    """Write ``train.json``. Paths under its folder are written relative to it, so that the folder may move."""
    path = Path(path)
    root = path.parent.resolve()
    lines = [
        json.dumps(
            {
                "target": _relative(sample.target, root),
                "target_emb": [_relative(sample.own.identity, root), _relative(sample.own.clip, root)],
                "ref_emb": [
                    [_relative(reference.identity, root) for reference in sample.references],
                    [_relative(reference.clip, root) for reference in sample.references],
                ],
            }
        )
        for sample in samples
    ]
    write_atomic(path, "".join(f"{line}\n" for line in lines).encode())


def read_samples(path: str | Path, root: str | Path | None = None) -> list[Sample]:
    """Return what a ``train.json`` lists, paths absolute.

    Args:
        path: the list.
        root: folder that relative paths start from and that no path may leave; None: the list's own folder for
            relative paths, and absolute paths, which published lists hold, are taken as they stand.

    Raises:
        DatasetError: the file is missing, a line is not of the published form, the ArcFace and CLIP files of a
            reference do not belong together, or a path leaves ``root``.
    """
    path = Path(path)
    with parsing(path, DatasetError, "write it with ffhqref prepare"):
        lines = read_regular(path).decode("utf-8").split("\n")
    samples = [_sample(f"{path}, line {number}", line, path, root) for number, line in enumerate(lines, 1) if line]
    if not samples:
        raise DatasetError(f"{path} lists nothing to train on")
    return samples


def feature_of(folder: str | Path, name: str) -> Feature:
    """Return the files of an image, ``<folder>/{id_emb,clip_emb}/<name>.npy``; references are ``<id>/<bucket>``."""
    return Feature(*(str(Path(folder) / kind / f"{name}.npy") for kind in KINDS))


def list_samples(
    images: Mapping[str, str],
    features: str | Path,
    *,
    references: References,
    synthetic: str | Path | None = None,
    real: Mapping[str, Sequence[str]] | None = None,
) -> tuple[list[Sample], list[Missing]]:
    """Pair targets with the features of their references.

    Args:
        images: image id to the image, for every target.
        features: FFHQ_EMB, the folder of the images' own features.
        references: ``synthetic``, as published; ``real``: other photographs of the person; or ``both``.
        synthetic: FFHQREF_EMB, the folder of the synthetic references' features, ``<kind>/<image id>/<bucket>.npy``.
        real: image id to the ids of other photographs of the person, whose features lie in ``features`` too.

    Returns:
        The samples in the order of ``images``, and those left out with the reason.

    Raises:
        ConfigError: the kind of references is unknown, or what it is made from was not given.
    """
    if references not in ("synthetic", "real", "both"):
        raise ConfigError(f"references={references}: expected synthetic, real or both")
    if references != "real" and synthetic is None:
        raise ConfigError(f"references={references} needs the folder of the synthetic references' features")
    if references != "synthetic" and real is None:
        raise ConfigError(f"references={references} needs a reference set: run ffhqref build first")
    samples, missing = [], []
    for image_id, image in images.items():
        own = feature_of(features, image_id)
        found: list[Feature] = []
        if references != "real" and synthetic is not None:
            names = sorted(file.stem for file in (Path(synthetic) / KINDS[0] / image_id).glob("*.npy"))
            found += [feature_of(synthetic, f"{image_id}/{name}") for name in names]
        if references != "synthetic" and real is not None:
            found += [feature_of(features, other) for other in real.get(image_id, ())]
        found = [feature for feature in found if _there(feature)]
        if not _there(own):
            missing.append(Missing(image_id, "its own features are missing: no face was found, or it was not prepared"))
        elif not found:
            missing.append(Missing(image_id, f"no {references} reference of it has features"))
        else:
            samples.append(Sample(image, own, tuple(found)))
    return samples, missing


def _there(feature: Feature) -> bool:
    return Path(feature.identity).is_file() and Path(feature.clip).is_file()


def _relative(name: str, root: Path) -> str:
    path = Path(name).resolve()
    return str(path.relative_to(root)) if path.is_relative_to(root) else str(path)


def _sample(where: str, line: str, listed_in: Path, root: str | Path | None) -> Sample:
    try:
        row: dict[str, Any] = json.loads(line)
        target, own, given = row["target"], row["target_emb"], row["ref_emb"]
        identities, clips = given
        pairs = [tuple(own), *zip(identities, clips, strict=True)]
        if not all(isinstance(name, str) and "\0" not in name for name in (target, *itertools.chain(*pairs))):
            raise TypeError("a path is no text, or holds a NUL")
        features = [Feature(*pair) for pair in pairs]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DatasetError(
            f"{where}: {type(error).__name__} ({error}); expected target, target_emb [id, clip] and ref_emb "
            "[[ids], [clips]] of equal length"
        ) from None
    for feature in features:
        if Path(feature.identity).name != Path(feature.clip).name:
            raise DatasetError(f"{where}: {feature.identity} and {feature.clip} are not of one image")

    def full(name: str) -> str:
        path = (Path(root) if root is not None else listed_in.parent) / name
        if root is not None and not path.resolve().is_relative_to(Path(root).resolve()):
            raise DatasetError(f"{where}: {name} leaves the folder {root}")
        return str(path)

    own_feature, *others = [Feature(full(feature.identity), full(feature.clip)) for feature in features]
    return Sample(full(target), own_feature, tuple(others))
