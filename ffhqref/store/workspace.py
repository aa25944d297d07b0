"""The workspace: one folder that holds the tables, the journals and the images of a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.conf import SAMPLE_ROOT
from ffhqref.core.errors import ConfigError, FfhqrefError, TableError
from ffhqref.core.files import open_own, sweep, write_atomic
from ffhqref.core.hashing import sha256_file
from ffhqref.store import tables
from ffhqref.store.schemas import SPECS

if TYPE_CHECKING:
    import pandas as pd


OWN = "workspace:"
"""Before a path among those of the data set: it is relative to the workspace."""

WRITTEN = (
    "tables", "journal", "embeddings", "aligned", "lq", "gt", "references", "outputs", "report", "synthetic",
    "FFHQ-Ref", "id_based_ffhq_split", "reference_mapping",
)  # fmt: skip
"""Folders of a workspace that runs write to."""


LINKED = "FFHQREF_LINKED"
"""Variable of the environment with folders of `WRITTEN`, joined by commas, that may be links out of the workspace."""


class Workspace:
    """Paths and tables under one root.

    Paths in tables are relative: images of the data set to the data set's root, which the ``images`` table
    records, and everything that ffhqref wrote to the workspace. Where both can stand (a case's references), the
    latter begin with `OWN`.

    Args:
        root: the folder; made when absent.
        read_only: only tables and images are read; nothing is made.

    Raises:
        ConfigError: the folder cannot be made or written, or is not there to be read.
    """

    def __init__(self, root: str | Path, *, read_only: bool = False) -> None:
        self.root = Path(root).expanduser().absolute()
        self._dataset_root: Path | None = None
        self._own_images = False
        self._lock: Any = None
        if read_only:
            if not (self.root / "tables").is_dir():
                raise ConfigError(f"no workspace of ffhqref: {self.root} has no folder 'tables'")
            return
        for name in WRITTEN:
            owned(self.root, name)
        try:
            for folder in (self.root, self.root / "tables", self.journals):
                folder.mkdir(parents=True, exist_ok=True)
            write_atomic(self.root / "tables" / ".probe", b"")
            (self.root / "tables" / ".probe").unlink()
        except OSError as error:
            reason = error.strerror or error
            raise ConfigError(
                f"cannot write to the workspace {self.root} ({reason}); choose another with root=FOLDER"
            ) from None

    @property
    def journals(self) -> Path:
        """Folder of the stages' journals."""
        return self.root / "journal"

    def lock(self) -> None:
        """Refuse to go on while another process works in this workspace; the lock ends with the process.

        What killed processes left half written is removed.

        Raises:
            FfhqrefError: another process holds it.
        """
        try:
            import fcntl
        except ImportError:  # Windows: no lock
            return
        stream = open_own(self.root / ".lock", "a+b")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            stream.seek(0)
            holder = stream.read(20).decode("ascii", "replace").strip() or "unknown"
            raise FfhqrefError(
                f"the workspace {self.root} is in use by process {holder}; wait for it or choose another root"
            ) from None
        stream.truncate(0)
        stream.write(str(os.getpid()).encode())
        stream.flush()
        self._lock = stream
        sweep(self.root)
        for folder, folders, _ in os.walk(self.root):  # all that will be written lies in one of them
            for name in folders:
                if Path(folder, name).is_symlink():
                    owned(self.root, os.path.relpath(Path(folder, name), self.root))

    def close(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def read(self, table: str) -> pd.DataFrame:
        """Read a table; see `ffhqref.store.tables.read_table`."""
        return tables.read_table(self.root, table)

    def damaged_tables(self) -> dict[str, str]:
        """Read every table that is there; return why, of each that is damaged, was changed or is of another release."""
        found = {}
        for name in SPECS:
            try:
                if self.has(name):
                    tables.read_metadata(self.root, name)
            except TableError as error:
                found[name] = str(error)
        return found

    def check_current(self, table: str) -> None:
        """Refuse a stale table; see `ffhqref.store.tables.check_current`."""
        tables.check_current(self.root, table)

    def has(self, table: str) -> bool:
        """Return whether a table is there."""
        return tables.table_path(self.root, table).is_file()

    def write(
        self, table: str, frame: pd.DataFrame, *, inputs: tuple[str, ...] | Mapping[str, str] = (), **facts: Any
    ) -> Path:
        """Write a table with its provenance.

        Args:
            table: its name.
            frame: the rows.
            inputs: names of this workspace's tables that it was made from, whose hashes are recorded; or names and
                hashes, for tables of other workspaces.
            facts: of `ffhqref.store.tables.provenance`.
        """
        if not isinstance(inputs, Mapping):
            inputs = {name: tables.table_hash(self.root, name) for name in inputs}
        origin = tables.provenance(inputs=inputs, **facts)
        return tables.write_table(self.root, table, frame, origin)

    @property
    def dataset_root(self) -> Path:
        """Root of the data set that the ``images`` table lists."""
        if self._dataset_root is None:
            recorded = str(tables.read_metadata(self.root, "images").get("dataset_root", ""))
            if recorded == "package:sample":
                self._dataset_root = SAMPLE_ROOT
            elif recorded.startswith(OWN):
                self._dataset_root, self._own_images = owned(self.root, recorded.removeprefix(OWN)), True
            else:
                self._dataset_root = Path(recorded)
        return self._dataset_root

    def image(self, relative: str) -> Path:
        """Return where an image of the data set, or of the workspace if its path says so, lies."""
        if relative.startswith(OWN):
            return self.file(relative.removeprefix(OWN))
        path = inside(self.dataset_root, relative)
        return self.file(os.path.relpath(path, self.root)) if self._own_images else path

    def file(self, relative: str) -> Path:
        """Return where a file of the workspace lies; one that a link leads out of it is refused."""
        return owned(self.root, relative)

    def picture_hashes(self) -> Callable[[str], str]:
        """Return a function from a path of the tables to the image's SHA-256: the recorded one where there is one."""
        images, made = self.read("images"), self.read("degradations").dropna(subset=["lq_path"])
        known = dict(zip(images["path"], images["sha256"], strict=True))
        known.update(zip(made["lq_path"], made["lq_sha256"], strict=True))
        if self.has("imports"):  # a workspace of an earlier release has none
            brought = self.read("imports").dropna(subset=["path"])
            own = brought["path"].where(brought["role"] == "lq", OWN + brought["path"])
            known.update(zip(own, brought["sha256"], strict=True))

        def sha256(path: str) -> str:
            if path not in known:
                known[path] = sha256_file(self.file(path.removeprefix(OWN)))
            made: str = known[path]
            return made

        return sha256


def inside(root: Path, relative: str) -> Path:
    """Join a path from a table to its root and refuse one that leaves it.

    Raises:
        TableError: an absolute path, or one that climbs out with ``..``.
    """
    if Path(relative).is_absolute() or ".." in Path(relative).parts:
        raise TableError(f"the path '{relative}' leaves its root {root}; tables may only name files below it")
    return root / relative


def owned(root: Path, relative: str) -> Path:
    """Join a path from a table to the workspace and refuse one that leaves it, by its text or through a link.

    Raises:
        TableError: see `inside`; or a link leads out of the root.
    """
    path, first = inside(root, relative), Path(relative).parts[:1]
    tops = [_real(root), *(_real(root / name) for name in first if name in _linked())]
    within = [top for top in tops if _real(path.parent).is_relative_to(top) or path == root.joinpath(*first)]
    if not any(not path.is_symlink() or path.resolve().is_relative_to(top) for top in within):
        raise TableError(
            f"{path} leads out of {root} through a link, which a workspace may not: put the files into it, or name "
            f"the other folder as the root; for a folder that you linked to another disk yourself, set {LINKED}="
            f"{first[0] if first else 'NAME'}"
        )
    return path


def _linked() -> list[str]:
    """Return the folders of a workspace that the user says he linked to elsewhere."""
    return [name for name in os.environ.get(LINKED, "").split(",") if name in WRITTEN]


@lru_cache(4096)
def _real(folder: Path) -> Path:
    return folder.resolve()
