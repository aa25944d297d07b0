"""Low-quality images and reference sets of images in memory, equal to those of the pipelines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.api.images import as_images, as_square, is_single
from ffhqref.core.errors import ConfigError
from ffhqref.core.images import SIZE, to_tensor

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from numpy.typing import NDArray

    from ffhqref.api.images import Pictures
    from ffhqref.reference_sets.build import ReferenceSet


def degrade(
    images: Pictures,
    degradation: str | Path | Mapping[str, Any] = "severe",
    *,
    seed: int = 2024,
    ids: Sequence[str] | str | None = None,
) -> tuple[torch.Tensor | NDArray[np.uint8], pd.DataFrame]:
    """Return low-quality images and what was drawn for each, as `ffhqref degrade` makes them.

    The draw depends on the seed, the degradation's name and the image's id, not on other images or their order.

    Args:
        images: see `ffhqref.api.images`; brought to 512x512.
        degradation: a name (`ffhqref.list_degradations`), a YAML file, or options.
        seed: of the run.
        ids: of the images; None: the file names without ending of paths, the position (``"0"``, …) of others.

    Returns:
        (lq, parameters): lq in the form of ``images``, and a frame with the columns of table ``degradations`` that
        are drawn, a row for each image.

    Raises:
        FfhqrefError: an unknown name or option, or an image that cannot be used; one line.
    """
    import pandas as pd

    from ffhqref.api.images import as_given
    from ffhqref.degradation import apply, draw, get_degradation

    given = as_images(images, "images")
    names = _ids(images, ids, len(given))
    rules = get_degradation(degradation, "own")
    drawn = [draw(rules, seed, name) for name in names]
    low = [
        apply(as_square(image, SIZE, "images"), parameters, rules)
        for image, parameters in zip(given, drawn, strict=True)
    ]
    rows = [{"target_id": name, **one.to_row(), "level": rules.name} for name, one in zip(names, drawn, strict=True)]
    return as_given(to_tensor(low), images), pd.DataFrame(rows)


def build_reference_sets(
    embeddings_or_images: Any,
    *,
    ids: Sequence[str] | None = None,
    embedder: str | Mapping[str, Any] = "dlib",
    ages: Mapping[str, float] | None = None,
    **options: Any,
) -> ReferenceSet:
    """Group images by person, split the people, and order the references of each target.

    Args:
        embeddings_or_images: float vectors [N, D] of length 1, or aligned faces (`ffhqref.api.images`).
        ids: of the images; None: see `degrade`.
        embedder: of images: a name, or ``name``, ``crop`` and options. Its thresholds are the defaults of
            ``max_distance`` and ``min_distance``; of vectors they are ArcFace's (ReF-LDM: 0.4 and 0.1).
        ages: id to age in years.
        options: of `ffhqref.reference_sets.options.BuildConfig`: ``test``, ``val`` (people: a count, or a fraction
            below 1; 0.1 and 0.05), ``min_references``, ``max_distance`` and others.

    Returns:
        An object with the frames ``identities``, ``references``, ``pairs`` and ``audit``.

    Raises:
        FfhqrefError: vectors that are not normalised, an option of another kind, or too few people; one line.
    """
    from ffhqref.core.options import read_options
    from ffhqref.reference_sets.build import build_reference_set
    from ffhqref.reference_sets.options import BuildConfig

    defaults: dict[str, Any] = {"test": 0.1, "val": 0.05, "min_references": 1}
    if isinstance(embeddings_or_images, np.ndarray) and embeddings_or_images.ndim == 2:
        vectors, names = embeddings_or_images, _ids(None, ids, len(embeddings_or_images))
    else:
        vectors, thresholds = _embedded(embeddings_or_images, embedder)
        names, defaults = _ids(embeddings_or_images, ids, len(vectors)), {**defaults, **thresholds}
    return build_reference_set(names, vectors, read_options(BuildConfig, {**defaults, **options}, "build"), ages=ages)


def _embedded(images: Pictures, embedder: str | Mapping[str, Any]) -> tuple[NDArray[np.float32], dict[str, float]]:
    from ffhqref.api.benchmarks import config_of
    from ffhqref.faces import embed, make_embedder

    options = {"name": embedder} if isinstance(embedder, str) else dict(embedder)
    config = config_of([f"embedder={options.pop('name')}"]).embedder
    crop = str(options.pop("crop", config.crop))
    network = make_embedder(config.name, **options)
    given = (as_square(image, SIZE, "images")[None] for image in as_images(images, "images"))
    vectors = np.concatenate([embed(one, network, crop) for one in given])
    return vectors, {"max_distance": config.max_distance, "min_distance": config.min_distance}


def _ids(images: Any, ids: Sequence[str] | str | None, count: int) -> list[str]:
    if ids is not None:
        names = [ids] if isinstance(ids, str) else [str(name) for name in ids]
    else:
        items = [images] if images is not None and is_single(images) else images
        paths = items is not None and not hasattr(items, "shape") and all(isinstance(one, (str, Path)) for one in items)
        names = [Path(one).stem for one in items] if paths else [str(index) for index in range(count)]
    if len(names) != count or len(set(names)) != count:
        raise ConfigError(f"ids: {len(set(names))} different ones of {count} images; expected one for each")
    return names
