"""Embeddings that look like those of FFHQ to a builder: for tests, benchmarks and dry runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def simulate_embeddings(
    images: int = 70_000,
    grouped: int = 20_405,
    identities: int = 6_523,
    dim: int = 512,
    near_duplicates: float = 0.02,
    seed: int = 0,
) -> tuple[list[str], NDArray[np.float32], NDArray[np.int64]]:
    """Return embeddings with the published numbers of images and people (ReF-LDM paper).

    Photographs of one person scatter around a random direction, most pairs of them 0.15 to 0.4 apart and some farther,
    so that a person's images are not all direct neighbours; people are unrelated (distance near 1). Group sizes are 2
    plus a geometric number. Nothing else of real faces is imitated.

    Args:
        images: in all.
        grouped: of people with at least two images.
        identities: how many such people.
        dim: of a vector.
        near_duplicates: share of the grouped images that are almost equal (distance about 0.02) to one before them.
        seed: of everything.

    Returns:
        ids (``"00000"``, ...), vectors float32 [images, dim] of length 1, and the true person int64 [images]. People
        are scattered over the ids.

    Raises:
        ConfigError: numbers that cannot be met.
    """
    if not (0 <= grouped <= images and 2 * identities <= grouped and (identities or not grouped)):
        raise ConfigError(f"cannot place {grouped} of {images} images in {identities} groups of at least two")
    rng = np.random.default_rng(seed)
    sizes = np.full(identities, 2)
    if identities:
        sizes += rng.multinomial(grouped - 2 * identities, _normalised(rng.exponential(size=identities)))
    person = np.concatenate([np.repeat(np.arange(identities), sizes), identities + np.arange(images - grouped)])
    centres = _unit(rng.standard_normal((identities + images - grouped, dim), dtype=np.float32))
    spread = rng.uniform(0.4, 0.75, size=(images, 1)).astype(np.float32)
    vectors = _unit(rng.standard_normal((images, dim), dtype=np.float32))
    vectors *= spread
    vectors += centres[person]
    vectors = _unit(vectors)
    copies = np.flatnonzero(rng.random(grouped) < near_duplicates)
    copies = copies[(copies > 0) & (person[copies] == person[copies - 1])]
    noise = _unit(rng.standard_normal((len(copies), dim), dtype=np.float32))
    vectors[copies] = _unit(vectors[copies - 1] + np.float32(0.2) * noise)
    place = rng.permutation(images)
    width = max(5, len(str(images - 1)))
    return [f"{i:0{width}d}" for i in range(images)], vectors[place], person[place]


def _normalised(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    made: NDArray[np.float64] = weights / weights.sum()
    return made


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors
