"""FFHQ's own metadata, ``ffhq-dataset-v2.json``: who took each image, and under which licence."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from ffhqref.core.errors import DatasetError
from ffhqref.core.files import read_regular
from ffhqref.core.parsing import parsing
from ffhqref.datasets.base import Credit, GivenPath, given_path


def read_ffhq_json(path: GivenPath, image_ids: Collection[str]) -> dict[str, Credit]:
    """Read author and licence of FFHQ's images.

    The file is one object, keyed by the number of the image without leading zeros; its form is told in the README
    of FFHQ's repository. Of its 255 MB only the credits are kept while it is parsed.

    Args:
        path: the file.
        image_ids: the images wanted, ``"00000"`` and so on.

    Raises:
        DatasetError: no such file, no JSON, another form, or an image that it does not know.
    """
    file = given_path(path, "dataset.json")
    if not file.is_file():
        raise DatasetError(f"no such file: {file}; dataset.json is FFHQ's ffhq-dataset-v2.json")
    with parsing(file, DatasetError, "dataset.json is ffhq-dataset-v2.json"):
        found = json.loads(read_regular(file), object_hook=_slim)
    if not isinstance(found, dict):
        raise DatasetError(f"{file}: expected one object keyed by image number, as in ffhq-dataset-v2.json")
    read = {}
    for image_id in image_ids:
        entry = found.get(str(int(image_id)))
        credit = entry.get("metadata") if isinstance(entry, dict) else None
        if not isinstance(credit, Credit):
            what = "has no metadata with author and license" if entry else "is not in the file"
            raise DatasetError(f"{file}: image {image_id} {what}; is it the whole ffhq-dataset-v2.json?")
        read[image_id] = credit
    return read


def _slim(found: dict[str, Any]) -> Any:
    """Keep the credits of one image's metadata and drop its landmarks and checksums as soon as they are parsed."""
    if "license" in found and "author" in found:
        return Credit(*(str(found.get(key) or "") for key in ("author", "license", "license_url", "photo_url")))
    return None if "file_md5" in found else found
