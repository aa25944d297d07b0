"""Cases with their images in one piece, in three layouts of the hub: write a folder of them, and read it again."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from ffhqref.core.errors import DatasetError
from ffhqref.core.files import open_regular, read_regular
from ffhqref.core.parsing import parsing
from ffhqref.store.sealed import check_size
from ffhqref.store.workspace import inside

if TYPE_CHECKING:
    import pyarrow as pa

Layout = Literal["webdataset", "parquet", "imagefolder"]

SHARD_BYTES = 1 << 29
"""A shard is closed when its images exceed this."""

METADATA = "metadata.jsonl"

ORIGIN = "benchmark.json"
"""What the images of a benchmark are of: data set, whether its split is a published one, and `ORIGIN_OPTIONS`."""

ORIGIN_OPTIONS = ("split", "published_set", "published_degradation", "degradation", "references")
"""Options of the benchmark that say whose people are tested, and which published numbers may stand beside."""

_GAP = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63606060000000040001f61738"
    "550000000049454e44ae426082"
)
"""A PNG of one black pixel: stands for a reference that is not there where all rows need the same fields."""


@dataclass(frozen=True)
class Picture:
    """An image file."""

    ending: str
    """With the dot, in lower case."""
    data: bytes


@dataclass(frozen=True)
class PackedCase:
    """A case with everything that belongs to it."""

    case_id: str
    target_id: str
    identity_id: int | None
    age: float | None
    age_gap: float | None
    parameters: str | None
    """Of the degradation, as JSON with the columns of the table ``degradations``; None where they are not known."""
    lq: Picture
    gt: Picture | None
    references: tuple[Picture, ...]

    @property
    def facts(self) -> dict[str, Any]:
        """Everything but the images."""
        return {
            "case_id": self.case_id,
            "target_id": self.target_id,
            "identity_id": self.identity_id,
            "age": self.age,
            "age_gap": self.age_gap,
            "parameters": self.parameters,
        }


def write_cases(folder: Path, layout: Layout, split: str, cases: Iterable[PackedCase], most: int) -> None:
    """Write the cases of one benchmark.

    Args:
        folder: a new or empty one.
        layout: a key of `READERS`.
        split: name that the hub's loader gives to them.
        cases: in order; they are read one by one.
        most: references that one of them has at most.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if layout == "webdataset":
        _write_tars(folder, split, cases, most)
    elif layout == "parquet":
        _write_parquet(folder, split, cases)
    else:
        _write_folder(folder, split, cases)


def read_cases(folder: str | Path) -> Iterator[PackedCase]:
    """Yield the cases of a folder that `write_cases` wrote, whatever its layout.

    Raises:
        DatasetError: it is no such folder, or damaged.
    """
    folder = Path(folder).expanduser()
    layout = layout_of(folder)
    with parsing(folder, DatasetError, "it is damaged: export it again"):
        yield from READERS[layout](folder)


def layout_of(folder: Path) -> Layout:
    """Return the layout of a folder.

    Raises:
        DatasetError: it has none.
    """
    marks: dict[Layout, str] = {"parquet": "*.parquet", "webdataset": "*.tar", "imagefolder": f"*/{METADATA}"}
    for layout, pattern in marks.items():
        if any(folder.glob(pattern)):
            return layout
    raise DatasetError(
        f"{folder}: no cases of ffhqref export there (*.parquet, *.tar or SPLIT/{METADATA}); give the folder of one "
        "benchmark, for instance EXPORT/severe"
    )


def _shards(cases: Iterable[PackedCase]) -> Iterator[list[PackedCase]]:
    held: list[PackedCase] = []
    size = 0
    for case in cases:
        held.append(case)
        size += sum(len(image.data) for image in (case.lq, case.gt, *case.references) if image)
        if size > SHARD_BYTES:
            yield held
            held, size = [], 0
    if held:
        yield held


def _write_folder(folder: Path, split: str, cases: Iterable[PackedCase]) -> None:
    lines = []
    place = folder / split
    for case in cases:
        files = {f"lq/{case.case_id}{case.lq.ending}": case.lq}
        if case.gt:
            files[f"gt/{case.case_id}{case.gt.ending}"] = case.gt
        for rank, image in enumerate(case.references):
            files[f"references/{case.case_id}/{rank:03d}{image.ending}"] = image
        lq, *others = files
        names: dict[str, Any] = {"lq_file_name": lq}
        if case.gt:
            names["gt_file_name"] = others.pop(0)
        lines.append(json.dumps({**names, "references_file_names": others, **case.facts}, ensure_ascii=False))
        for name, image in files.items():
            path = inside(place, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image.data)
    (place / METADATA).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def _read_folder(folder: Path) -> Iterator[PackedCase]:
    def picture(place: Path, name: str) -> Picture:
        return Picture(PurePosixPath(name).suffix, read_regular(inside(place, name)))

    for listed in sorted(folder.glob(f"*/{METADATA}")):
        for line in filter(None, read_regular(listed).decode("utf-8").split("\n")):
            row = json.loads(line)
            gt = row.pop("gt_file_name", None)
            lq, references = row.pop("lq_file_name"), row.pop("references_file_names")
            yield PackedCase(
                **row,
                lq=picture(listed.parent, lq),
                gt=picture(listed.parent, gt) if gt else None,
                references=tuple(picture(listed.parent, name) for name in references),
            )


def _write_parquet(folder: Path, split: str, cases: Iterable[PackedCase]) -> None:
    import pyarrow.parquet as pq

    for number, shard in enumerate(_shards(cases)):
        pq.write_table(_arrow(shard), folder / f"{split}-{number:05d}.parquet", row_group_size=100)


def _arrow(cases: list[PackedCase]) -> pa.Table:
    import pyarrow as pa

    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    facts = {
        "case_id": "string", "target_id": "string", "identity_id": "int32", "age": "float64", "age_gap": "float64",
        "parameters": "string",
    }  # fmt: skip
    images = {"lq": image, "gt": image, "references": pa.list_(image)}
    features: dict[str, Any] = {name: {"dtype": kind, "_type": "Value"} for name, kind in facts.items()}
    features |= {"lq": {"_type": "Image"}, "gt": {"_type": "Image"}}
    features["references"] = {"feature": {"_type": "Image"}, "_type": "List"}
    kinds = {"string": pa.string(), "int32": pa.int32(), "float64": pa.float64()}
    schema = pa.schema(
        [*((name, kinds[kind]) for name, kind in facts.items()), *images.items()],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )

    def struct(picture: Picture | None, name: str) -> dict[str, Any] | None:
        return None if picture is None else {"bytes": picture.data, "path": f"{name}{picture.ending}"}

    rows = [
        {
            **case.facts,
            "lq": struct(case.lq, case.case_id),
            "gt": struct(case.gt, case.case_id),
            "references": [struct(picture, f"{rank:03d}") for rank, picture in enumerate(case.references)],
        }
        for case in cases
    ]
    return pa.Table.from_pylist(rows, schema=schema)


def _read_parquet(folder: Path) -> Iterator[PackedCase]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    def picture(value: Mapping[str, Any]) -> Picture:
        return Picture(PurePosixPath(value["path"]).suffix, value["bytes"])

    for path in sorted(folder.glob("*.parquet")):
        data = read_regular(path)
        check_size(data)
        for part in pq.ParquetFile(pa.BufferReader(data)).iter_batches(100):
            for row in part.to_pylist():
                lq, gt, references = row.pop("lq"), row.pop("gt"), row.pop("references")
                yield PackedCase(
                    **row,
                    lq=picture(lq),
                    gt=picture(gt) if gt else None,
                    references=tuple(map(picture, references)),
                )


def _write_tars(folder: Path, split: str, cases: Iterable[PackedCase], most: int) -> None:
    """Write tars in which all cases have the same files, as the hub's loader wants it.

    A file of a reference that is not there holds one pixel; the JSON tells how many there are. It tells the facts as a
    text, because the loader takes their types from the first few cases, in which some may be null.
    """
    number = 0
    for place, shard in enumerate(_shards(cases)):
        with tarfile.open(folder / f"{split}-{place:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
            for case in shard:
                images = {"lq": case.lq, **({"gt": case.gt} if case.gt else {})}
                given = [*case.references, *[Picture("", _GAP)] * (most - len(case.references))]
                images |= {f"reference{rank}": image for rank, image in enumerate(given)}
                endings = {name: image.ending for name, image in images.items()}
                row = {"case_id": case.case_id, "references": len(case.references)}
                row |= {"facts": json.dumps(case.facts), "endings": json.dumps(endings)}
                _add(tar, f"{number:08d}.json", json.dumps(row, ensure_ascii=False).encode())
                for name, image in images.items():
                    _add(tar, f"{number:08d}.{name}.png", image.data)
                number += 1


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def _read_tars(folder: Path) -> Iterator[PackedCase]:
    for path in sorted(folder.glob("*.tar")):
        # plain: a compressed one could hold more than there is memory
        with open_regular(path) as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            files: dict[str, bytes] = {}
            for member in tar:
                part = member.name.partition(".")[2]
                if part == "json" and files:
                    yield _untarred(files)
                    files = {}
                content = tar.extractfile(member)
                files[part] = content.read() if content else b""
            if files:
                yield _untarred(files)


def _untarred(files: Mapping[str, bytes]) -> PackedCase:
    row = json.loads(files["json"])
    endings = json.loads(row["endings"])
    images = {name: Picture(ending, files[f"{name}.png"]) for name, ending in endings.items()}
    return PackedCase(
        **json.loads(row["facts"]),
        lq=images["lq"],
        gt=images.get("gt"),
        references=tuple(images[f"reference{rank}"] for rank in range(row["references"])),
    )


READERS: dict[Layout, Callable[[Path], Iterator[PackedCase]]] = {
    "webdataset": _read_tars,
    "parquet": _read_parquet,
    "imagefolder": _read_folder,
}
"""Layouts of the hub, and what reads them."""
