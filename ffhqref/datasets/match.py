"""Which image a name in a user's file means: one rule for every table and list."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from ffhqref.core.images import EXTENSIONS


class ImageMatcher:
    """Find images by the names that tables and lists give them.

    In this order: the id itself; the path below the data set's root, also at the end of a longer path; the file name
    with or without its image ending, where that is an id; for a number the one image of the same number, since
    spreadsheets drop leading zeros. Letters with accents are the same in both spellings of Unicode. A name that fits
    nothing, or two images, finds none: an ending that is no image format is never taken off.

    Args:
        files: image id to path below the root; or ids alone.
    """

    def __init__(self, files: Mapping[str, str] | Iterable[str]) -> None:
        paths = dict(files) if isinstance(files, Mapping) else {image_id: image_id for image_id in files}
        self._paths = paths
        self._by_path = {path: image_id for image_id, path in paths.items()}
        self._by_number: dict[str, str | None] = {}
        for image_id in paths:
            if _is_number(image_id):
                number = image_id.lstrip("0")
                self._by_number[number] = None if number in self._by_number else image_id
        composed = {_composed(image_id): _composed(path) for image_id, path in paths.items()}
        self._other: tuple[ImageMatcher, dict[str, str]] | None = None
        if composed != paths and len(composed) == len(paths):
            self._other = ImageMatcher(composed), dict(zip(composed, paths, strict=True))

    def find_all(self, names: Iterable[str]) -> list[str | None]:
        """Find the images that the names of one table mean.

        Where some of them have the folders of their images, the same file name in another folder is another image.

        >>> matcher = ImageMatcher({"001": "ann/001.png", "002": "bob/002.png"})
        >>> matcher.find_all(["ann/001.png", "ann/002.png"]), matcher.find_all(["x/001.png", "x/002.png"])
        (['001', None], ['001', '002'])
        """
        pairs = [(name, self.find(name)) for name in names]
        agree = [None if image_id is None else self._agree(name, image_id) for name, image_id in pairs]
        if True not in agree:
            return [image_id for _, image_id in pairs]
        return [None if same is False else image_id for (_, image_id), same in zip(pairs, agree, strict=True)]

    def _agree(self, name: str, image_id: str) -> bool | None:
        """Return whether a name has the folders of an image, None where one of the two has none."""
        given, there = (PurePosixPath(path).parent.parts for path in (_plain(name), _composed(self._paths[image_id])))
        return given[-len(there) :] == there if given and there else None

    def find(self, name: str) -> str | None:
        """Return the id of the image that a name means, or None.

        >>> ImageMatcher(["kim", "kim.2010", "00007"]).find("kim.2010")
        'kim.2010'
        >>> ImageMatcher(["kim", "00007"]).find("kim.2010"), ImageMatcher(["kim", "00007"]).find("faces/7.png")
        (None, '00007')
        """
        found = self._find(name.strip().replace("\\", "/"))
        if found is None and self._other is not None:
            matcher, spelled = self._other
            found = spelled.get(matcher.find(name) or "")
        if found is None and (plain := _plain(name)) != name:
            found = self._find(plain)
        return found

    def _find(self, name: str) -> str | None:
        if name in self._paths:
            return name
        parts = name.split("/")
        tails = ("/".join(parts[start:]) for start in range(len(parts)))
        found = next((self._by_path[tail] for tail in tails if tail in self._by_path), None)
        if found is not None:
            return found
        for form in (parts[-1], without_ending(parts[-1])):
            if form in self._paths:
                return form
        stem = without_ending(parts[-1])
        return self._by_number.get(stem.lstrip("0")) if _is_number(stem) else None


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _plain(name: str) -> str:
    return _composed(name.strip().replace("\\", "/"))


def without_ending(name: str) -> str:
    """Return a file name without its image ending; any other ending is part of the name.

    >>> without_ending("kim.2010.png"), without_ending("kim.2010")
    ('kim.2010', 'kim.2010')
    """
    stem, dot, ending = name.rpartition(".")
    return stem if stem and f"{dot}{ending}".lower() in EXTENSIONS else name


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal()
