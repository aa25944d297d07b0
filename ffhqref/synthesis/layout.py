"""The published folders of FFHQRef: ``target_pose_i/target_pose_i_j/NNNNN.png``.

The published preparation takes the last three characters of the inner folder ("0_1") as the name of a reference, which
is why i and j are single digits.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ffhqref.core.errors import ConfigError, DatasetError

_INNER = re.compile(r"target_pose_(\d)/target_pose_\1_(\d)")


def reference_path(target_id: str, pose: int, expression: int) -> str:
    """Return where a synthetic reference lies below the FFHQRef folder.

    >>> reference_path("00042", 0, 1)
    'target_pose_0/target_pose_0_1/00042.png'

    Args:
        target_id: the image id, 00000 to 69999 in FFHQ.
        pose: pose bucket i, 0 to 9.
        expression: expression bucket j, 0 to 9.

    Raises:
        ConfigError: a bucket of more than one digit, or an id that is no file name.
    """
    if not (0 <= pose <= 9 and 0 <= expression <= 9):
        raise ConfigError(f"bucket {pose}_{expression}: the published folder names hold two single digits, 0 to 9")
    if Path(target_id).name != target_id or target_id in ("", ".", ".."):
        raise ConfigError(f"image id '{target_id}' cannot be the name of a file")
    return f"target_pose_{pose}/target_pose_{pose}_{expression}/{target_id}.png"


def read_layout(folder: str | Path) -> Iterator[tuple[str, int, int, str]]:
    """Yield the references in a folder of that layout, ours or the published one, sorted by path.

    Args:
        folder: FFHQRef.

    Yields:
        Target id, pose bucket i, expression bucket j, path relative to ``folder``.

    Raises:
        DatasetError: no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DatasetError(f"no such folder: {root}; expected FFHQRef with target_pose_i/target_pose_i_j/NNNNN.png")
    for path in sorted(root.glob("target_pose_?/target_pose_?_?/*.png")):
        relative = path.relative_to(root)
        bucket = _INNER.fullmatch(relative.parent.as_posix())
        if bucket is not None and not path.name.startswith("."):
            yield path.stem, int(bucket[1]), int(bucket[2]), relative.as_posix()


def remove_rejected(folder: str | Path, targets: set[str], accepted: set[str]) -> list[str]:
    """Delete the images of the given targets that are not accepted (any more); return their relative paths.

    Images of other targets stay: a run over a few does not undo what an earlier run over all has made.

    Args:
        folder: FFHQRef; nothing is done when it does not exist.
        targets: targets of this run.
        accepted: relative paths that stay.
    """
    if not Path(folder).is_dir():
        return []
    gone = [path for target, _, _, path in read_layout(folder) if target in targets and path not in accepted]
    for path in gone:
        (Path(folder) / path).unlink()
    return gone
