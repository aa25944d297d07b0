"""Every pair of images nearer than a threshold: exact, blocked, without the N x N matrix.

Two passes. The first computes cosines tile by tile over the upper triangle, in bfloat16 where the processor has it in
hardware, else in float32, and keeps what could be below the threshold given a bound on that arithmetic's error. The
second decides each kept pair in float64 by the rule of `ffhqref.reference_sets.vectors`. Because every pair is decided
there, the result is the same on every device, with every tile size and number of threads.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ffhqref.core.errors import ConfigError, DatasetError
from ffhqref.reference_sets.vectors import Embeddings, check_distance, stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pandas as pd
    import torch
    from numpy.typing import ArrayLike, NDArray

MAX_PAIRS = 10_000_000
"""More pairs than this are refused: the threshold cannot be right, and the table would not fit in memory."""

_COARSE_ENOUGH = 0.2
"""Below this threshold bfloat16's error bound would keep too many candidates, so float32 is used."""


def find_pairs(
    image_ids: Sequence[str] | NDArray[np.object_],
    vectors: ArrayLike,
    max_distance: float,
    *,
    block: int = 2048,
    device: str = "cpu",
    precision: str = "auto",
    on_progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Return every pair of images whose cosine distance is strictly below ``max_distance``.

    Memory beside the vectors: one bfloat16 or float32 copy of them, a few tiles, and the pairs found.

    Args:
        image_ids: N unique ids, any order.
        vectors: [N, D], L2-normalised.
        max_distance: threshold on ``1 - cosine``, 0..2. ReF-LDM: 0.4.
        block: side of a tile.
        device: a torch device for the first pass.
        precision: of the first pass: ``"float32"``, ``"bfloat16"`` or ``"auto"``. Changes the time only.
        on_progress: called with (tiles done, tiles in all).

    Returns:
        Table ``pairs``: image_a < image_b, distance float32, sorted by both ids.

    Raises:
        DatasetError: bad embeddings (see `Embeddings.checked`), or more than `MAX_PAIRS` pairs.
        ConfigError: a threshold outside 0..2, an unknown precision, or a block below 1.
    """
    return pairs_of(
        Embeddings.checked(image_ids, vectors),
        max_distance,
        block=block,
        device=device,
        precision=precision,
        on_progress=on_progress,
    )


def pairs_of(
    embeddings: Embeddings,
    max_distance: float,
    *,
    block: int = 2048,
    device: str = "cpu",
    precision: str = "auto",
    on_progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Do what `find_pairs` does, for embeddings that are checked already."""
    import pandas as pd

    check_distance("max_distance", max_distance)
    if block < 1:
        raise ConfigError(f"block must be at least 1, got {block}")
    found: list[tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]] = []
    count = 0
    for rows, columns in _candidates(embeddings.vectors, max_distance, block, device, precision, on_progress):
        distances = embeddings.pair_distances(rows, columns)
        near = distances < max_distance
        count += int(near.sum())
        if count > MAX_PAIRS:
            raise DatasetError(
                f"more than {MAX_PAIRS:,} pairs lie below max_distance={max_distance}: the threshold is too large "
                "for this embedder; lower it"
            )
        found.append((rows[near].astype(np.int32), columns[near].astype(np.int32), distances[near]))
    a = np.concatenate([part[0] for part in found]) if found else np.zeros(0, np.int32)
    b = np.concatenate([part[1] for part in found]) if found else np.zeros(0, np.int32)
    distance = np.concatenate([part[2] for part in found]) if found else np.zeros(0)
    order = np.lexsort((b, a))  # rows are in the order of the ids
    return pd.DataFrame(
        {
            "image_a": pd.Series(embeddings.image_ids[a[order]], dtype="str"),
            "image_b": pd.Series(embeddings.image_ids[b[order]], dtype="str"),
            "distance": stored(distance[order]),
        }
    )


def _candidates(
    vectors: NDArray[np.float32],
    max_distance: float,
    block: int,
    device: str,
    precision: str,
    on_progress: Callable[[int, int], None] | None,
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield rows i < j, tile by tile, among which is every pair below the threshold."""
    import torch

    n = len(vectors)
    if n < 2:
        return
    kind = _first_pass_type(precision, max_distance, device)
    floor = 1.0 - max_distance - _error_bound(kind, vectors.shape[1])
    work = torch.empty(vectors.shape, device=device, dtype=kind)
    for start in range(0, n, block):
        part = torch.tensor(vectors[start : start + block], device=device)
        work[start : start + block] = part / torch.linalg.vector_norm(part, dim=1, keepdim=True)
    starts = range(0, n, block)
    total, done = len(starts) * (len(starts) + 1) // 2, 0
    tile = torch.empty(block * block, device=device, dtype=kind)
    for top in starts:
        left = work[top : top + block]
        for start in range(top, n, block):
            right = work[start : start + block]
            cosine = tile[: len(left) * len(right)].view(len(left), len(right))
            with _sums_in_float32():
                torch.mm(left, right.T, out=cosine)
            # Few rows of a tile hold a hit: a maximum a row costs far less than comparing and listing all cells.
            hit_rows = torch.nonzero(cosine.amax(dim=1) > floor).squeeze(1)
            if len(hit_rows):
                hits = torch.nonzero(cosine[hit_rows] > floor)
                rows = (hit_rows[hits[:, 0]] + top).cpu().numpy()
                columns = (hits[:, 1] + start).cpu().numpy()
                upper = rows < columns
                if upper.any():
                    yield rows[upper], columns[upper]
            done += 1
            if on_progress:
                on_progress(done, total)


def _first_pass_type(precision: str, max_distance: float, device: str) -> torch.dtype:
    import torch

    if precision == "float32":
        return torch.float32
    if precision == "bfloat16":
        return torch.bfloat16
    if precision != "auto":
        raise ConfigError(f"precision must be 'auto', 'float32' or 'bfloat16', got '{precision}'")
    if torch.device(device).type == "cpu":
        asks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
        fast = any(ask() for ask in asks if ask is not None)
    else:
        fast = torch.device(device).type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if fast and max_distance >= _COARSE_ENOUGH else torch.float32


@contextmanager
def _sums_in_float32() -> Iterator[None]:
    """Keep cuBLAS from adding up parts of a bfloat16 product in bfloat16, its default: `_error_bound` relies on it."""
    import torch

    flags = torch.backends.cuda.matmul
    before = flags.allow_bf16_reduced_precision_reduction
    flags.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        flags.allow_bf16_reduced_precision_reduction = before


def _error_bound(kind: torch.dtype, dim: int) -> float:
    """Return a bound on the first pass's error in a cosine, doubled for safety.

    By Cauchy-Schwarz, rounding both unit vectors to a relative error of 2**-p changes their product by at most
    2 * 2**-p; rounding the result costs another 2**-p; float32 accumulation of D products, and the division that
    made the vectors unit ones, (D + 8) * 2**-24.
    """
    import torch

    accumulation = (dim + 8) * 2.0**-24
    # torch may be told to compute float32 products in TF32 or bfloat16 (p = 9 covers both).
    exact = kind == torch.float32 and torch.get_float32_matmul_precision() == "highest"
    return 2.0 * ((0.0 if exact else 3.0 * 2.0**-9) + accumulation)
