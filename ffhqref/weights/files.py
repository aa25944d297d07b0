"""Weight files: which exist, where they come from, where they are looked for, and whether they can be trusted.

The registry is the data file ``weights.json`` beside this module. Nothing here goes to the network unless `fetch`
is called, or `require` with ``download=True``; the environment variables ``FFHQREF_OFFLINE`` and ``HF_HUB_OFFLINE``
forbid it altogether.

A file is looked for in this order: the path that was given; the configured folder (argument ``folder``, else the
environment variable ``FFHQREF_WEIGHTS``, else ``ffhqref/weights`` in the user's cache); the caches of the libraries
that download the same file (``TORCH_HOME``, insightface, facexlib).

Trust: a SHA-256 that the registry knows in full must match. A hash known only by the prefix in the file's name is
checked when the file is fetched; a local file that differs from it is used and reported as `Weights.published` False,
so that signatures tell it apart. What has no known hash is recorded on first use and refused when it changes later.
A path that the user names is the user's choice: it is hashed, not compared, and may be another file tomorrow. Hashes
are remembered with size, times and inode, so that a large file is read for its hash once.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import WeightsError, did_you_mean
from ffhqref.core.hashing import sha256_file
from ffhqref.weights.intact import why_broken
from ffhqref.weights.recorded import forget, hash_recorded, keep

if TYPE_CHECKING:
    import torch

    from ffhqref.weights.download import Progress

log = logging.getLogger(__name__)

_RECORD = "recorded_sha256.json"


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
    sha256: str | None = None
    """64 hexadecimal digits, or the first 8 or more of them; None: not known."""
    size: int | None = None
    """Bytes."""
    licence: str = "not stated"
    commercial: bool = False
    """Whether the licence allows commercial use."""
    paper: str | None = None
    trained_on: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    """Library caches that are looked through: ``checkpoints``, ``pyiqa``, ``insightface``, ``facexlib``."""
    used_by: tuple[str, ...] = ()
    note: str | None = None

    @property
    def origin(self) -> str:
        """Return where the file comes from, for messages."""
        return self.sources[0] if self.sources else self.page or "its authors"


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
    download: bool = False,
    progress: Progress | None = None,
) -> Weights:
    """Return a weight file that is there and checked.

    Args:
        name: registry name, or an entry from `by_filename`.
        path: a file the user named.
        folder: the configured weights folder.
        download: fetch a missing file (never when offline is set in the environment).
        progress: told while fetching.

    Raises:
        WeightsError: absent, damaged, or another file than the registry or the record of first use says.
    """
    item = entry(name) if isinstance(name, str) else name
    found = find(item, path=path, folder=folder)
    if found is None and download and not offline():
        found = fetch(item, folder=folder, progress=progress)
    if found is None:
        note = f" ({item.note})" if item.note else ""
        raise WeightsError(
            f"weights '{item.name}' are not on this machine: put {item.filename} from {item.origin}{note} into "
            f"{search_folders(item, folder)[0]}"
            + "".join(f" or {place}" for place in search_folders(item, folder)[1:2])
            + (f", or run: ffhqref weights fetch {item.name}" if item.sources else "")
        )
    if path is not None:
        _check_whole(WeightFile(item.name, str(path)), found)
        return Weights(item.name, item.filename, found, file_sha256(found, folder), None)
    _check_whole(item, found)
    digest = _digest(item, found, folder, recheck=False)
    return Weights(item.name, item.filename, found, digest, _judge(item, found, digest))


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
        forget(found, _records(folder))
    digest = _digest(item, found, folder, recheck=True)
    return Weights(item.name, item.filename, found, digest, _judge(item, found, digest))


def _check_whole(item: WeightFile, found: Path) -> None:
    """Refuse a file that an interrupted download left, before its hash is recorded.

    Raises:
        WeightsError: it is cut off, empty, or a page in place of the file.
    """
    try:
        reason = why_broken(found, size=item.size if len(item.sha256 or "") == 64 else None)
    except OSError as error:
        raise WeightsError(f"cannot read {found}: {error.strerror or error}") from None
    if reason:
        raise WeightsError(f"weights '{item.name}': {found} is not whole ({reason}): {_remedy(item)}")


def _remedy(item: WeightFile) -> str:
    if item.sources and item in registry().values():
        return f"run: ffhqref weights fetch {item.name}"
    return f"delete it and get it again from {item.origin}"


def _judge(item: WeightFile, found: Path, digest: str) -> bool | None:
    """Compare with the registry; raise when the full hash or the size differs."""
    if item.sha256 is None:
        return None
    if digest.startswith(item.sha256):
        return True
    if len(item.sha256) == 64:
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
    try:
        digest = hash_recorded(path, _records(folder)).sha256
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from None
    keep(path, digest, _records(folder))
    return digest


def _digest(item: WeightFile, path: Path, folder: str | Path | None, *, recheck: bool) -> str:
    """Return the SHA-256 of a file that the registry found; refuse one that changed since it was recorded."""
    records = _records(folder)
    found = hash_recorded(path, records, recheck=recheck)
    if found.before is not None and found.before != found.sha256:
        raise WeightsError(
            f"weights changed since first use: {path} (sha256 {found.sha256[:12]}…, recorded {found.before[:12]}…); "
            + (
                f"if that is meant, run: ffhqref weights verify --accept {item.name}"
                if item.name in registry()
                else f"if that is meant, remove its entry from {found.record}"
            )
        )
    keep(path, found.sha256, records)
    return found.sha256


def _records(folder: str | Path | None) -> list[Path]:
    """Return where hashes are recorded: beside the weights, or in the user's cache where that cannot be written."""
    return [place / _RECORD for place in _record_homes(folder)]


def _record_homes(folder: str | Path | None = None) -> list[Path]:
    return list(dict.fromkeys([home(folder), _cache_root() / "ffhqref" / "weights"]))


def _cache_root() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def inventory(folder: str | Path | None = None) -> list[dict[str, Any]]:
    """Return one line for each registered file: what it is, and where it lies on this machine (None: absent).

    Args:
        folder: the configured weights folder.
    """
    return [
        {
            "name": item.name,
            "filename": item.filename,
            "path": find(item, folder=folder),
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


def offline() -> bool:
    """Return whether the environment forbids the network (``FFHQREF_OFFLINE`` or ``HF_HUB_OFFLINE``)."""
    return any(os.environ.get(name, "").lower() in {"1", "true", "yes", "on"} for name in _OFFLINE)


_OFFLINE = ("FFHQREF_OFFLINE", "HF_HUB_OFFLINE")


def fetch(
    name: str | WeightFile,
    *,
    folder: str | Path | None = None,
    progress: Progress | None = None,
    timeout: float = 10.0,
) -> Path:
    """Download a file into the weights folder, check it, and return its path.

    An interrupted download is taken up again where it stopped. Sources are tried in order; a host that does not
    answer within ``timeout`` seconds is not asked again by this process, so that a machine without network says so
    in seconds, however many files are missing.

    Args:
        name: registry name or entry.
        folder: the configured weights folder.
        progress: called with (bytes there, bytes in all or None).
        timeout: seconds to wait for a connection or for the next bytes.

    Raises:
        WeightsError: offline, nothing to fetch it from, no source answers, or what came is another file.
    """
    from ffhqref.weights.download import alone

    item = entry(name) if isinstance(name, str) else name
    if offline():
        raise WeightsError(f"weights '{item.name}': offline is set ({' or '.join(_OFFLINE)}); nothing was fetched")
    if not item.sources:
        raise WeightsError(
            f"weights '{item.name}' cannot be fetched by program: get {item.filename} from {item.origin} and put it "
            f"into {home(folder)}"
        )
    target = home(folder) / item.filename
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(f"weights '{item.name}': cannot write to {target.parent}: {error.strerror}") from None
    with alone(part) as waited:
        if waited and target.is_file() and _wrong(item, target) is None:
            return target  # another process fetched it
        return _fetched_from_a_source(item, target, part, folder, progress, timeout)


def _fetched_from_a_source(
    item: WeightFile, target: Path, part: Path, folder: str | Path | None, progress: Progress | None, timeout: float
) -> Path:
    from http.client import HTTPException

    from ffhqref.weights.download import cause, resume, silence

    problems = []
    for source in item.sources:
        try:
            reason = silence("/".join(source.split("/")[:3]), timeout)
            if reason is not None:
                raise OSError(reason)
            resume(source, part, progress, timeout)
        except (OSError, HTTPException) as error:
            problems.append(f"{source}: {cause(error)}")
            continue
        problem = _wrong(item, part)
        if problem is None:
            forget(target, _records(folder))
            part.replace(target)
            return target
        part.unlink()
        problems.append(f"{source}: {problem}")
    raise WeightsError(f"weights '{item.name}' could not be fetched: {'; '.join(problems)}")


def _wrong(item: WeightFile, part: Path) -> str | None:
    """Return why a fetched file is not the one that was asked for, or None."""
    digest = sha256_file(part)
    if item.sha256 and not digest.startswith(item.sha256):
        return f"sha256 {digest[:12]}…, expected {item.sha256[:12]}…"
    reason = why_broken(part, name=item.filename)
    return f"not whole ({reason})" if reason else None


def fetched(name: str, *, folder: str | Path | None = None, progress: Progress | None = None) -> Weights:
    """Return a weight file, fetched where it is absent, cut off, or another file than the published one.

    Raises:
        WeightsError: see `fetch` and `require`.
    """
    item = entry(name)
    try:
        return require(item, folder=folder)
    except WeightsError:
        if not item.sources:
            raise
    fetch(item, folder=folder, progress=progress)
    return require(item, folder=folder)


def load_tensors(path: str | Path, *, wrappers: Iterable[str] = (), prefix: str = "") -> dict[str, torch.Tensor]:
    """Read the tensors of a checkpoint without running any code in it.

    Args:
        path: a ``.safetensors`` file, or one written by ``torch.save``.
        wrappers: names of an outer level, tried in order (``params_ema``, ``params``, ``state_dict``); the first
            that exists is taken, and none need exist.
        prefix: removed from the names that carry it (``module.``).

    Returns:
        Names to tensors on the CPU; entries that are no tensors are left out.

    Raises:
        WeightsError: missing, truncated, a pickle that holds more than tensors, or no tensors in it.
    """
    import torch

    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"no such weight file: {path}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - damaged files raise anything
        what = "holds more than tensors" if "Unsupported" in str(error) or "GLOBAL" in str(error) else "is damaged"
        forget(path, [folder / _RECORD for folder in (*path.absolute().parents[:2], *_record_homes())])
        first = str(error).strip().splitlines()[0][:100] if str(error).strip() else type(error).__name__
        raise WeightsError(
            f"weight file {what} and was refused: {path} ({first}); get it again (ffhqref weights fetch NAME, "
            "after deleting it)"
        ) from None
    for wrapper in wrappers:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    tensors = {
        str(key).removeprefix(prefix): value
        for key, value in (content.items() if isinstance(content, Mapping) else ())
        if isinstance(value, torch.Tensor)
    }
    if not tensors:
        raise WeightsError(f"no tensors in weight file: {path}")
    return tensors


def load_into(
    module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], path: str | Path, *, assign: bool = False
) -> None:
    """Load tensors into a network strictly; batch counters of normalisation layers may be missing.

    Args:
        module: the network.
        tensors: its tensors by name.
        path: where they came from, for messages.
        assign: put the tensors themselves into the network, which may lie on the meta device, instead of copying:
            large networks then need their memory once.

    Raises:
        WeightsError: tensors are missing, left over, or of another shape; the line names the first.
    """
    own = module.state_dict()
    missing = [key for key in own if key not in tensors and not key.endswith("num_batches_tracked")]
    foreign = [key for key in tensors if key not in own]
    shapes = [key for key in own if key in tensors and own[key].shape != tensors[key].shape]
    if missing or foreign or shapes:
        parts = [
            f"{len(keys)} {what} (first: {keys[0]})"
            for keys, what in ((missing, "missing"), (foreign, "unknown"), (shapes, "of another shape"))
            if keys
        ]
        raise WeightsError(f"{path} does not fit {type(module).__name__}: tensors {', '.join(parts)}")
    module.load_state_dict(dict(tensors), strict=False, assign=assign)
