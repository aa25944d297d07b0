"""Weight files: which exist, where they come from, where they are looked for, and whether they can be trusted.

The registry is the data file ``weights.json`` beside this module. Nothing goes to the network unless
`ffhqref.weights.fetch.fetch` is called, or `obtain` there with ``download=True``; the environment variables
``FFHQREF_OFFLINE`` and ``HF_HUB_OFFLINE`` forbid it altogether.

A file is looked for in this order: the path that was given; the configured folder (argument ``folder``, else the
environment variable ``FFHQREF_WEIGHTS``, else ``ffhqref/weights`` in the user's cache); the caches of the libraries
that download the same file (``TORCH_HOME``, insightface, facexlib).

Trust: what is fetched must have the registry's SHA-256, in full or the prefix that the file's name gives. So must a
local file, except where the registry allows a substitute: that is used and reported as `Weights.published` False, so
that signatures tell it apart. What has no known hash is recorded on first use and refused when it changes later.
A path that the user names is the user's choice: it is hashed, not compared, and may be another file tomorrow. Hashes
are remembered with size, times and inode, so that a large file is read for its hash once.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from ffhqref.core.errors import WeightsError, did_you_mean
from ffhqref.weights.intact import why_broken
from ffhqref.weights.recorded import Recorded, forget, hash_recorded, keep, known_sha256

log = logging.getLogger(__name__)

RECORD = "recorded_sha256.json"
"""Name of the files in which hashes are kept."""


@dataclass(frozen=True)
class WeightFile:
    """One entry of the registry."""

    name: str
    filename: str
    """File name, with the folder it stands in where that is fixed (``antelopev2/glintr100.onnx``)."""
    aliases: tuple[str, ...] = ()
    """Other file names under which the same file is met."""
    sources: tuple[str, ...] = ()
    """URLs that serve the file itself, best first; empty: only a page to fetch it from by hand."""
    page: str | None = None
    """Where a person finds the file."""
    released: bool = True
    """Whether its authors have published it."""
    sha256: str | None = None
    """64 hexadecimal digits, or the first 8 or more of them; None: not known."""
    size: int | None = None
    """Bytes; None: not known from a public source."""
    substitutes: bool = False
    """Whether a local file that is another than the published one may stand in for it."""
    licence: str = "not stated"
    commercial: bool = False
    """Whether the licence allows commercial use."""
    paper: str | None = None
    trained_on: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    """Library caches that are looked through: ``checkpoints``, ``pyiqa``, ``insightface``, ``facexlib``."""
    used_by: tuple[str, ...] = ()
    companions: tuple[str, ...] = ()
    """Files of the same published folder that are of no use apart, fetched with it: ``vae/config.json``."""
    note: str | None = None

    @property
    def origin(self) -> str:
        """Return where the file comes from, for messages."""
        return self.sources[0] if self.sources else self.page or "its authors"

    @property
    def parts(self) -> list[WeightFile]:
        """Return its companions as entries; the first source ends with the path of this file in its folder."""
        folder, _, inside = self.filename.partition("/")
        bases = [source.removesuffix(inside) for source in self.sources]
        return [
            replace(
                self, name=f"{self.name}/{path}", filename=f"{folder}/{path}", aliases=(), sha256=None, size=None,
                sources=tuple(base + path for base in bases), companions=(),
            )
            for path in self.companions
        ]  # fmt: skip

    @property
    def size_and_licence(self) -> str:
        """Return what a download costs, for messages."""
        size = f"{self.size / 1e6:,.0f} MB" if self.size else "size unknown"
        return f"{size}, licence: {self.licence}"


@dataclass(frozen=True)
class Weights:
    """A file that was found and checked."""

    name: str
    filename: str
    """As registered, whatever the file on this machine is called."""
    path: Path
    sha256: str
    published: bool | None
    """True: the published hash; False: another one than the file name promises; None: the hash is not known."""
    folder: Path | None = None
    """The weights folder in whose record the hash is."""

    def __str__(self) -> str:
        """Return the path, for messages."""
        return str(self.path)

    def __fspath__(self) -> str:
        """Return the path."""
        return str(self.path)

    @property
    def signature(self) -> str:
        """Return registered name and hash in one word, for the signatures of metrics and embedders."""
        foreign = "(not the published file)" if self.published is False else ""
        return f"{Path(self.filename).name}@{self.sha256[:12]}{foreign}"


@cache
def registry() -> Mapping[str, WeightFile]:
    """Return all known weight files by name."""
    text = resources.files("ffhqref.weights").joinpath("weights.json").read_text(encoding="utf-8")
    found: dict[str, WeightFile] = {}
    for fields in json.loads(text)["files"]:
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()
        }
        found[values["name"]] = WeightFile(**values)
    return found


def entry(name: str) -> WeightFile:
    """Return the registry entry of that name.

    Raises:
        WeightsError: no such entry.
    """
    known = registry()
    if name not in known:
        raise WeightsError(f"no weight file is registered as '{name}'.{did_you_mean(name, known)}")
    return known[name]


def by_filename(filename: str) -> WeightFile:
    """Return the entry of a file name, or an unregistered one made up for it (searched for in every cache)."""
    for known in registry().values():
        if filename in (Path(known.filename).name, *known.aliases):
            return known
    return WeightFile(filename, filename, folders=("pyiqa", "checkpoints", "facexlib"))


def home(folder: str | Path | None = None) -> Path:
    """Return the folder that fetched files go to: ``folder``, ``FFHQREF_WEIGHTS``, or one in the user's cache."""
    chosen = folder or os.environ.get("FFHQREF_WEIGHTS")
    if chosen:
        return Path(chosen).expanduser()
    return _cache_root() / "ffhqref" / "weights"


def search_folders(item: WeightFile, folder: str | Path | None = None) -> list[Path]:
    """Return the folders a file is looked for in, in order."""
    hub = Path(os.environ.get("TORCH_HOME") or _cache_root() / "torch") / "hub"
    insightface = Path(os.environ.get("INSIGHTFACE_HOME") or Path.home() / ".insightface") / "models"
    caches = {
        "checkpoints": hub / "checkpoints",
        "pyiqa": hub / "pyiqa",
        "insightface": insightface,
        "facexlib": hub / "facexlib",
    }
    chosen = [home(folder)]
    return chosen + [caches[name] for name in item.folders]


def find(name: str | WeightFile, *, path: str | Path | None = None, folder: str | Path | None = None) -> Path | None:
    """Return where a weight file lies on this machine, unchecked, or None.

    Args:
        name: registry name, or an entry from `by_filename`.
        path: a file the user named; looked at first and alone.
        folder: the configured weights folder.

    Raises:
        WeightsError: unknown name, or ``path`` does not exist.
    """
    item = entry(name) if isinstance(name, str) else name
    if path is not None:
        if not Path(path).is_file():
            raise WeightsError(f"weights '{item.name}': no such file: {path}")
        return Path(path)
    names = [item.filename, *item.aliases]
    if "/" in item.filename:
        names.append(Path(item.filename).name)
    for place in search_folders(item, folder):
        for candidate in names:
            if (place / candidate).is_file():
                return place / candidate
    return None


def require(
    name: str | WeightFile,
    *,
    path: str | Path | None = None,
    folder: str | Path | None = None,
) -> Weights:
    """Return a weight file that is there and checked; `ffhqref.weights.fetch.obtain` may fetch it first.

    Args:
        name: registry name, or an entry from `by_filename`.
        path: a file the user named.
        folder: the configured weights folder.

    Raises:
        WeightsError: absent, damaged, or another file than the registry or the record of first use says.
    """
    item = entry(name) if isinstance(name, str) else name
    found = find(item, path=path, folder=folder)
    if found is None:
        note = f" ({item.note})" if item.note else ""
        raise WeightsError(
            f"weights '{item.name}' are not on this machine: put {item.filename} from {item.origin}{note} into "
            f"{search_folders(item, folder)[0]}"
            + "".join(f" or {place}" for place in search_folders(item, folder)[1:2])
            + (f", or run: ffhqref weights fetch {item.name} ({item.size_and_licence})" if item.sources else "")
        )
    if path is not None:
        _check_whole(WeightFile(item.name, str(path)), found)
        return Weights(item.name, item.filename, found, file_sha256(found, folder), None, _chosen(folder))
    _check_whole(item, found)
    digest = _digest(item, found, folder, recheck=False)
    return Weights(item.name, item.filename, found, digest, _judge(item, found, digest), _chosen(folder))


def verify(name: str, *, folder: str | Path | None = None, accept: bool = False) -> Weights:
    """Hash a file again, whatever was recorded, and return it.

    Args:
        name: registry name.
        folder: the configured weights folder.
        accept: record the file as it is now.

    Raises:
        WeightsError: absent, or not the file it should be.
    """
    item = entry(name)
    found = find(item, folder=folder)
    if found is None:
        return require(name, folder=folder)
    _check_whole(item, found)
    if accept:
        forget(found, records(folder))
    digest = _digest(item, found, folder, recheck=True)
    return Weights(item.name, item.filename, found, digest, _judge(item, found, digest), _chosen(folder))


def _check_whole(item: WeightFile, found: Path) -> None:
    """Refuse a file that an interrupted download left, before its hash is recorded.

    Raises:
        WeightsError: it is cut off, empty, or a page in place of the file.
    """
    try:
        reason = why_broken(found, size=item.size if item.sha256 and not _may_differ(item) else None)
    except OSError as error:
        raise WeightsError(f"cannot read {found}: {error.strerror or error}") from None
    if reason:
        raise WeightsError(f"weights '{item.name}': {found} is not whole ({reason}): {_remedy(item)}")


def _remedy(item: WeightFile) -> str:
    if item.sources and item in registry().values():
        return f"run: ffhqref weights fetch {item.name}"
    return f"delete it and get it again from {item.origin}"


def _chosen(folder: str | Path | None) -> Path | None:
    return None if folder is None else Path(folder)


def _may_differ(item: WeightFile) -> bool:
    return item.substitutes or len(item.sha256 or "") < 64


def _judge(item: WeightFile, found: Path, digest: str) -> bool | None:
    """Compare with the registry; raise when the full hash or the size differs."""
    if item.sha256 is None:
        return None
    if digest.startswith(item.sha256):
        return True
    if not _may_differ(item):
        raise WeightsError(
            f"weights '{item.name}': {found} is not the published file (sha256 {digest[:12]}…, expected "
            f"{item.sha256[:12]}…): {_remedy(item)}"
        )
    log.warning("weights '%s': %s is not the published file (sha256 %s…)", item.name, found, digest[:12])
    return False


def file_sha256(path: str | Path, folder: str | Path | None = None) -> str:
    """Return the SHA-256 of any file that the user names, from the record while the file is unchanged.

    Args:
        path: the file.
        folder: the configured weights folder.

    Raises:
        WeightsError: it cannot be read.
    """
    found = _hashed(path, records(folder))
    keep(path, found, records(folder))
    return found.sha256


def _hashed(path: str | Path, where: list[Path], *, recheck: bool = False) -> Recorded:
    try:
        return hash_recorded(path, where, recheck=recheck)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from None


def _digest(item: WeightFile, path: Path, folder: str | Path | None, *, recheck: bool) -> str:
    """Return the SHA-256 of a file that the registry found; refuse one that changed since it was recorded."""
    found = _hashed(path, records(folder), recheck=recheck)
    if found.unusable:
        raise WeightsError(f"weights '{item.name}': {path} did not load ({found.unusable}): {_remedy(item)}")
    if found.before is not None and found.before != found.sha256:
        raise WeightsError(
            f"weights changed since first use: {path} (sha256 {found.sha256[:12]}…, recorded {found.before[:12]}…); "
            + (
                f"if that is meant, run: ffhqref weights verify --accept {item.name}"
                if item.name in registry()
                else f"if that is meant, remove its entry from {found.record}"
            )
        )
    keep(path, found, records(folder))
    return found.sha256


def records(folder: str | Path | None = None) -> list[Path]:
    """Return where hashes are recorded: beside the weights, or in the user's cache where that cannot be written."""
    return [place / RECORD for place in dict.fromkeys([home(folder), _cache_root() / "ffhqref" / "weights"])]


def _cache_root() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def inventory(folder: str | Path | None = None) -> list[dict[str, Any]]:
    """Return one line for each registered file: what it is, and where it lies on this machine (None: absent).

    Args:
        folder: the configured weights folder.
    """
    places = {item.name: find(item, folder=folder) for item in registry().values()}
    return [
        {
            "name": item.name,
            "filename": item.filename,
            "path": places[item.name],
            "verified": _verified(item, places[item.name], folder),
            "known": _known(item),
            "size": item.size,
            "sha256": item.sha256,
            "fetchable": bool(item.sources),
            "licence": item.licence,
            "commercial": item.commercial,
            "trained_on": ", ".join(item.trained_on),
            "paper": item.paper,
            "used_by": ", ".join(item.used_by),
        }
        for item in registry().values()
    ]


def _verified(item: WeightFile, path: Path | None, folder: str | Path | None) -> str | None:
    """Return how far a file is known to be the right one, from the records alone; None: it is not here."""
    if path is None:
        return None
    digest = known_sha256(path, records(folder))
    if digest is None:
        return "never"
    if item.sha256 is None:
        return "first use"
    if not digest.startswith(item.sha256):
        return "NOT the published file"
    return _known(item)


def _known(item: WeightFile) -> str:
    """Return how far a file can be known to be the right one."""
    if item.sha256 is None:
        return "no hash"
    return "full hash" if len(item.sha256) == 64 else "short hash"


def offline() -> bool:
    """Return whether the environment forbids the network (``FFHQREF_OFFLINE`` or ``HF_HUB_OFFLINE``)."""
    return any(os.environ.get(name, "").lower() in {"1", "true", "yes", "on"} for name in OFFLINE)


OFFLINE = ("FFHQREF_OFFLINE", "HF_HUB_OFFLINE")
"""Variables of the environment that forbid the network."""
