"""A reference set as a Croissant file (MLCommons' JSON-LD, version 1.0), so that tools can load its tables."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref import __version__
from ffhqref.core.hashing import sha256_file
from ffhqref.store import schemas, tables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

TYPES = {"string": "sc:Text", "int32": "sc:Integer", "float32": "sc:Float", "bool": "sc:Boolean"}
PICTURES = {
    ("references", "target_id"), ("references", "reference_id"), ("identities", "image_id"), ("ages", "image_id"),
    ("licences", "image_id"), ("attributes", "image_id"), ("pairs", "image_a"), ("pairs", "image_b"),
}  # fmt: skip
"""Columns that name an image of the table ``images``."""

CONTEXT = {
    "@language": "en", "@vocab": "https://schema.org/", "citeAs": "cr:citeAs", "column": "cr:column",
    "conformsTo": "dct:conformsTo", "cr": "http://mlcommons.org/croissant/",
    "equivalentProperty": "cr:equivalentProperty",
    "data": {"@id": "cr:data", "@type": "@json"}, "rai": "http://mlcommons.org/croissant/RAI/",
    "samplingRate": "cr:samplingRate",
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"}, "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"}, "extract": "cr:extract", "field": "cr:field",
    "fileObject": "cr:fileObject", "fileProperty": "cr:fileProperty", "fileSet": "cr:fileSet", "format": "cr:format",
    "includes": "cr:includes", "isLiveDataset": "cr:isLiveDataset", "jsonPath": "cr:jsonPath", "key": "cr:key",
    "md5": "cr:md5", "parentField": "cr:parentField", "path": "cr:path", "recordSet": "cr:recordSet",
    "references": "cr:references", "regex": "cr:regex", "repeated": "cr:repeated", "replace": "cr:replace",
    "sc": "https://schema.org/", "separator": "cr:separator", "source": "cr:source", "subField": "cr:subField",
    "transform": "cr:transform",
}  # fmt: skip
"""The context that the Croissant 1.0 specification prescribes."""


def croissant(
    root: str | Path,
    folder: str | Path,
    *,
    name: str,
    licence: str,
    attribution: str,
    counts: Mapping[str, int],
    names: Sequence[str],
) -> dict[str, Any]:
    """Return the Croissant description of a workspace's tables.

    Args:
        root: the workspace.
        folder: where the file will lie; addresses of tables are relative to it.
        name: of the data set.
        licence: of the data set.
        attribution: whom to cite.
        counts: identities, targets and references of the whole set.
        names: of the tables.
    """
    files = [
        {
            "@type": "cr:FileObject",
            "@id": f"{table}.parquet",
            "name": f"{table}.parquet",
            "contentUrl": Path(os.path.relpath(tables.table_path(root, table), folder)).as_posix(),
            "encodingFormat": "application/x-parquet",
            "sha256": sha256_file(tables.table_path(root, table)),
        }
        for table in names
    ]
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": f"ffhqref-{name}",
        "description": (
            f"Reference sets for face restoration over '{name}': {counts['identities']} identities, "
            f"{counts['targets']} targets with {counts['references']} references. Lists, ages and hashes only; the "
            "images come from their own publisher."
        ),
        "license": licence,
        "citeAs": attribution,
        "version": __version__,
        "distribution": files,
        "recordSet": [_record_set(table) for table in names],
    }


def _record_set(table: str) -> dict[str, Any]:
    spec = schemas.SPECS[table]
    fields = []
    for column, facts in spec.columns.items():
        field: dict[str, Any] = {
            "@type": "cr:Field",
            "@id": f"{table}/{column}",
            "name": column,
            "dataType": TYPES[facts.kind],
            "source": {"fileObject": {"@id": f"{table}.parquet"}, "extract": {"column": column}},
        }
        if (table, column) in PICTURES:
            field["references"] = {"field": {"@id": "images/image_id"}}
        fields.append(field)
    return {
        "@type": "cr:RecordSet",
        "@id": table,
        "name": table,
        "key": [{"@id": f"{table}/{column}"} for column in spec.key],
        "field": fields,
    }
