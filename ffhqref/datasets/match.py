"""Which image a name in a user's file means: one rule for every table and list."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ffhqref.core.images import EXTENSIONS


class ImageMatcher:
    """Find images by the names that tables and lists give them.

    In this order: the id itself; the path below the data set's root, also at the end of a longer path; the file name
    with or without its image ending, where that is an id; for a number the one image of the same number, since
    spreadsheets drop leading zeros. A name that fits nothing, or two images, finds none: an ending that is no image
    format is never taken off.

    Args:
        files: image id to path below the root; or ids alone.
    """

    def __init__(self, files: Mapping[str, str] | Iterable[str]) -> None:
        paths = dict(files) if isinstance(files, Mapping) else {image_id: image_id for image_id in files}
        self._ids = paths.keys()
        self._by_path = {path: image_id for image_id, path in paths.items()}
        self._by_number: dict[int, str | None] = {}
        for image_id in paths:
            if _is_number(image_id):
                number = int(image_id)
                self._by_number[number] = None if number in self._by_number else image_id

    def find(self, name: str) -> str | None:
        """Return the id of the image that a name means, or None.

        >>> ImageMatcher(["kim", "kim.2010", "00007"]).find("kim.2010")
        'kim.2010'
        >>> ImageMatcher(["kim", "00007"]).find("kim.2010"), ImageMatcher(["kim", "00007"]).find("faces/7.png")
        (None, '00007')
        """
        name = name.strip().replace("\\", "/")
        if name in self._ids:
            return name
        parts = name.split("/")
        tails = ("/".join(parts[start:]) for start in range(len(parts)))
        found = next((self._by_path[tail] for tail in tails if tail in self._by_path), None)
        if found is not None:
            return found
        for form in (parts[-1], without_ending(parts[-1])):
            if form in self._ids:
                return form
        stem = without_ending(parts[-1])
        return self._by_number.get(int(stem)) if _is_number(stem) else None


def without_ending(name: str) -> str:
    """Return a file name without its image ending; any other ending is part of the name.

    >>> without_ending("kim.2010.png"), without_ending("kim.2010")
    ('kim.2010', 'kim.2010')
    """
    stem, dot, ending = name.rpartition(".")
    return stem if stem and f"{dot}{ending}".lower() in EXTENSIONS else name


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal()
