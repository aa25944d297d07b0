"""Which images travel inside the page: small WebP copies, chosen and encoded within a budget."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from ffhqref.core.errors import ImageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray


T = TypeVar("T")


@dataclass(frozen=True)
class CasePictures:
    """Paths of one case as the tables hold them."""

    benchmark: str
    case_id: str
    lq: str
    gt: str | None
    references: list[str]
    outputs: dict[str, str]
    """Method to path; methods without an output are absent."""


@dataclass
class Album:
    """Encoded images, each once however many cases show it."""

    data: list[str] = field(default_factory=list)
    """Base64 WebP; the place in the list is the image's number."""
    cases: dict[tuple[str, str], dict[str, object]] = field(default_factory=dict)
    """(benchmark, case) to ``{"lq", "gt", "refs": [...], "out": {method: number}}``."""
    unreadable: list[str] = field(default_factory=list)
    """Paths that could not be read; the page shows a notice in their place."""
    characters: int = 0


def selection(keys: Sequence[tuple[str, str]], badness: NDArray[np.float64]) -> list[int]:
    """Return the order in which cases get images: in turn worst, best and evenly spread, benchmark by benchmark.

    Args:
        keys: (benchmark, case) of each case.
        badness: how badly the methods did, larger is worse; NaN where unknown.
    """
    queues = []
    for benchmark in sorted({key[0] for key in keys}):
        mine = [index for index, key in enumerate(keys) if key[0] == benchmark]
        order = sorted(mine, key=lambda index: (np.isnan(badness[index]), -badness[index]))
        # Bit-reversed places spread any first part of the queue evenly over the whole.
        width = max(1, (len(mine) - 1).bit_length())
        places = (int(f"{i:0{width}b}"[::-1], 2) for i in range(1 << width))
        spread = [mine[place] for place in places if place < len(mine)]
        queues.append(list(_unique(x for three in zip(order, reversed(order), spread, strict=True) for x in three)))
    longest = max(map(len, queues), default=0)
    return [queue[place] for place in range(longest) for queue in queues if place < len(queue)]


def build_album(
    cases: Iterable[CasePictures],
    *,
    size: int,
    reference_size: int,
    max_cases: int,
    max_characters: int,
    sha256: Mapping[str, str],
    workers: int = 2,
) -> Album:
    """Encode the images of as many cases as fit.

    Args:
        cases: in order of importance.
        size: side in pixels of LQ, outputs and ground truth; smaller images stay as they are.
        reference_size: side in pixels of references.
        max_cases: at most this many cases.
        sha256: path to the hash that the file must have; others are not checked.
        max_characters: stop before the base64 text grows beyond this.
        workers: threads that read and encode.
    """
    album = Album()
    numbers: dict[tuple[str, int], int | None] = {}
    remaining = islice(cases, max_cases)
    with ThreadPoolExecutor(workers) as pool:
        while chunk := list(islice(remaining, 8)):
            wanted = _unique(want for case in chunk for want in _wants(case, size, reference_size))
            fresh = [want for want in wanted if want not in numbers]
            texts = dict(
                zip(fresh, pool.map(lambda want: _encode(want[0], want[1], sha256.get(want[0])), fresh), strict=True)
            )
            for case in chunk:
                new = [want for want in _unique(_wants(case, size, reference_size)) if want not in numbers]
                cost = sum(len(texts[want] or "") for want in new)
                if album.characters + cost > max_characters:
                    return album
                album.characters += cost
                for want in new:
                    text = texts[want]
                    if text is None:
                        numbers[want] = None
                        album.unreadable.append(want[0])
                    else:
                        numbers[want] = len(album.data)
                        album.data.append(text)
                album.cases[case.benchmark, case.case_id] = {
                    "lq": numbers[case.lq, size],
                    "gt": numbers[case.gt, size] if case.gt else None,
                    "refs": [numbers[path, reference_size] for path in case.references],
                    "out": {method: numbers[path, size] for method, path in case.outputs.items()},
                }
    return album


def _wants(case: CasePictures, size: int, reference_size: int) -> Iterator[tuple[str, int]]:
    for path in (case.lq, case.gt, *case.outputs.values()):
        if path:
            yield path, size
    for path in case.references:
        yield path, reference_size


def _unique(items: Iterable[T]) -> Iterator[T]:
    return iter(dict.fromkeys(items))


def _encode(path: str, size: int, sha256: str | None) -> str | None:
    """Return an image as base64 WebP of at most ``size`` pixels a side, or None where it cannot be read."""
    import cv2

    from ffhqref.core.images import encode_webp, read_rgb

    try:
        image = read_rgb(path, sha256=sha256)
    except (ImageError, OSError):
        return None
    scale = size / max(image.shape[:2])
    if scale < 1:
        shape = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        image = np.asarray(cv2.resize(image, shape, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return base64.b64encode(encode_webp(image)).decode("ascii")
