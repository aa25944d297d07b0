"""The one gate through which weights are read: opened once, checked, and loaded from the same descriptor."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ffhqref.core.errors import WeightsError
from ffhqref.core.files import open_regular, read_regular
from ffhqref.core.hashing import sha256_bytes
from ffhqref.core.parsing import load_reason
from ffhqref.weights.files import RECORD, Weights, records
from ffhqref.weights.pickles import read_checkpoint
from ffhqref.weights.recorded import Stamp, hash_open, mark_unusable, sha256_open, stamp

if TYPE_CHECKING:
    import torch

_held: ContextVar[Mapping[Path, Weights]] = ContextVar("_held")


@contextlib.contextmanager
def holding(files: Iterable[Weights]) -> Iterator[None]:
    """Hold what is read inside by its path to the hash that was found before.

    For loaders that are given folders, and find the files in them.
    """
    token = _held.set({**_held.get({}), **{file.path.absolute(): file for file in files}})
    try:
        yield
    finally:
        _held.reset(token)


def _vouched(file: Weights | str | Path) -> Weights | None:
    return file if isinstance(file, Weights) else _held.get({}).get(Path(file).absolute())


@contextlib.contextmanager
def opened(file: Weights | str | Path) -> Iterator[Path]:
    """Open a file once and yield a name under which that very file is read.

    A file that `ffhqref.weights.files.require` found must still be the one that was hashed, when it is opened and when
    the caller has read it. Another file of the user's must only stay the same in between.

    Raises:
        WeightsError: missing, unreadable, or changed.
    """
    path = Path(file)
    with _opened(file) as stream:
        if (vouched := _vouched(file)) is not None:
            _compare(vouched, _hash(stream, vouched))
        with _steady(stream, path):
            yield _name(stream, path)


@dataclass(frozen=True)
class Held:
    """A file that is open and was hashed."""

    name: Path
    """Under which that very file is read while it is held."""
    sha256: str


@contextlib.contextmanager
def held(file: Weights | str | Path) -> Iterator[Held]:
    """Open a file once, hash it, and yield a name under which that very file is read, and ends as its own does.

    For libraries that read by path alone. The name lies in a folder of its own, where nothing is found beside it.

    Raises:
        WeightsError: see `opened`.
    """
    path = Path(file)
    with _opened(file) as stream, tempfile.TemporaryDirectory(prefix="ffhqref-") as folder:
        before = stamp(stream)
        try:
            digest = sha256_open(stream, path)
        except OSError as error:
            raise WeightsError(_absent(path, error)) from None
        if (vouched := _vouched(file)) is not None:
            _compare(vouched, digest)
        with _steady(stream, path, before):
            link = Path(folder) / f"weights{path.suffix}"
            link.symlink_to(_name(stream, path).absolute())
            yield Held(link, digest)


@contextlib.contextmanager
def _opened(file: Weights | str | Path) -> Iterator[BinaryIO]:
    try:
        stream = open_regular(Path(file))
    except OSError as error:
        raise WeightsError(_absent(Path(file), error)) from None
    with stream:
        yield stream


@contextlib.contextmanager
def _steady(stream: BinaryIO, path: Path, before: Stamp | None = None) -> Iterator[None]:
    """Refuse a file that changed meanwhile, or whose name leads to another one where it was read by its name."""
    before = before or stamp(stream)
    yield
    same = stamp(stream) == before
    if same and _name(stream, path) == path:
        same = path.exists() and os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    if not same:
        raise WeightsError(f"weight file changed while it was read: {path}; try again")


def read_bytes(file: Weights | str | Path) -> bytes:
    """Return the content of a file; that of a file from `ffhqref.weights.files.require` has the hash found there.

    Raises:
        WeightsError: missing, unreadable, or changed.
    """
    path = Path(file)
    try:
        data = read_regular(path)
    except OSError as error:
        raise WeightsError(_absent(path, error)) from None
    if (vouched := _vouched(file)) is not None:
        _compare(vouched, sha256_bytes(data))
    return data


def refuse(file: Weights | str | Path, what: str, error: Exception, otherwise: str = "") -> WeightsError:
    """Return the error of a file that does not load; the file is recorded as such, so that fetching replaces it.

    Args:
        file: the file.
        what: is wrong with it, as in "is damaged".
        error: what its reader said.
        otherwise: the remedy where the same file would come again.
    """
    path = Path(file)
    said = load_reason(error)
    beside = [folder / RECORD for folder in path.absolute().parents[:2]]
    mark_unusable(path, f"it {what}", [*beside, *records()])
    name = file.name if isinstance(file, Weights) else "NAME"
    return WeightsError(
        f"weight file {what} and was refused: {path} ({said}); get it again (ffhqref weights fetch {name}){otherwise}"
    )


def _absent(path: Path, error: OSError) -> str:
    if isinstance(error, (FileNotFoundError, IsADirectoryError)):
        return f"no such weight file: {path}"
    return f"cannot read {path}: {error.strerror or error}"


def _hash(stream: BinaryIO, file: Weights) -> str:
    try:
        return hash_open(stream, file.path, records(file.folder)).sha256
    except OSError as error:
        raise WeightsError(f"cannot read {file.path}: {error.strerror or error}") from None


def _compare(file: Weights, digest: str) -> None:
    if digest != file.sha256:
        raise WeightsError(
            f"weight file changed since it was checked: {file.path} (sha256 {digest[:12]}…, then {file.sha256[:12]}…); "
            "run again to use what is there now"
        )


def _name(stream: BinaryIO, path: Path) -> Path:
    """Return a path that leads to the open file itself, where the system has one."""
    own = Path(f"/proc/self/fd/{stream.fileno()}")
    with contextlib.suppress(OSError):
        if os.path.samestat(own.stat(), os.fstat(stream.fileno())):
            return own
    return path


def load_tensors(
    file: Weights | str | Path, *, wrappers: Iterable[str] = (), prefix: str = ""
) -> dict[str, torch.Tensor]:
    """Read the tensors of a checkpoint without running any code in it.

    A checkpoint may name classes of other packages, as old ones of Lightning do; one that uses them is refused.

    Args:
        file: a ``.safetensors`` file, or one written by ``torch.save``; `Weights` are held to their hash.
        wrappers: names of an outer level, tried in order (``params_ema``, ``params``, ``state_dict``); the first
            that exists is taken, and none need exist.
        prefix: removed from the names that carry it (``module.``).

    Returns:
        Names to tensors on the CPU; entries that are no tensors are left out.

    Raises:
        WeightsError: missing, changed, truncated, a pickle that holds more than tensors, or no tensors in it.
    """
    import torch

    path = Path(file)
    content = load_content(file)
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


def load_content(file: Weights | str | Path) -> Any:
    """Read a checkpoint as `load_tensors` does, for those that keep more than one list of tensors.

    Returns:
        What is in it: mappings, lists, tensors, plain values.

    Raises:
        WeightsError: missing, changed, truncated, or a pickle that holds more.
    """
    with opened(file) as name:
        return _checked(name, file, read_checkpoint)


def scan(name: Path, file: Weights | str | Path) -> Any:
    """Return the content of a checkpoint, if it holds nothing but tensors and plain values.

    Stricter than `load_tensors`, for files that another package unpickles afterwards: no foreign class is even named.

    Args:
        name: what `opened` yields.
        file: what it was given.

    Raises:
        WeightsError: damaged, or with code in it.
    """
    return _checked(name, file, _read_strict)


def _checked(name: Path, file: Weights | str | Path, read: Callable[[Path], Any]) -> Any:
    try:
        if Path(file).suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(name)
        return read(name)
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - damaged files raise anything
        code = "Unsupported" in str(error) or "GLOBAL" in str(error)
        if not code:
            raise refuse(file, "is damaged", error) from None
        otherwise = "; if it is the published one, save its tensors alone where you trust it"
        raise refuse(file, "holds more than tensors", error, otherwise) from None


def _read_strict(path: Path) -> Any:
    import torch

    return torch.load(path, map_location="cpu", weights_only=True)


def load_into(
    module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], path: Weights | str | Path, *, assign: bool = False
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
