"""Degrading as a stage of the engine: rows of pictures in, rows of table ``degradations`` out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError, FfhqrefError, cannot_write, did_you_mean, one_line
from ffhqref.core.hashing import content_key, sha256_bytes, sha256_file
from ffhqref.core.images import SIZE, read_rgb, save_png
from ffhqref.degradation.parameters import draw
from ffhqref.degradation.presets import PRESETS, Preset
from ffhqref.degradation.steps import apply
from ffhqref.engine.files import file_intact, file_stamp
from ffhqref.store.workspace import inside

if TYPE_CHECKING:
    from ffhqref.engine.base import Row


class DegradeStage:
    """Make one LQ picture per row and write it as a 512x512 PNG.

    A row has ``image_id``, ``path`` and ``sha256`` (of table ``images``; a relative path is taken from ``root``),
    ``level`` (a preset's name), ``seed`` (the run's) and ``out_path`` (relative to ``root``).

    A result has the columns of table ``degradations`` and, for `intact`, ``file_size`` and ``file_mtime_ns``. Where
    the picture cannot be used, ``lq_path`` and ``lq_sha256`` are None and ``error`` says why.

    Args:
        root: workspace that paths in rows and results are relative to.
        presets: presets of your own, by level name, beside the published ones.
        retry_failed: do rows again that failed in an earlier run; otherwise their failure is remembered until the
            picture changes.
    """

    name = "degrade"
    version = "1"
    batch_size = 8

    def __init__(
        self, root: str | Path, presets: Mapping[str, Preset] | None = None, retry_failed: bool = False
    ) -> None:
        self.root = Path(root)
        self.presets = {**PRESETS, **(presets or {})}
        self.retry_failed = retry_failed

    def preset(self, level: str) -> Preset:
        """Return the preset of a level.

        Raises:
            ConfigError: unknown level, with the nearest one.
        """
        if level not in self.presets:
            raise ConfigError(
                f"unknown degradation '{level}'.{did_you_mean(level, self.presets)} Known: {', '.join(self.presets)}"
            )
        return self.presets[level]

    def key(self, row: Row) -> str:
        """Return the content key: picture, preset, seed, place of the result, version of the code and of OpenCV."""
        import cv2

        rules = asdict(self.preset(row["level"]))
        for words in ("source", "notes"):
            rules.pop(words)
        return content_key(
            self.name, self.version, cv2.__version__, rules,
            [row[name] for name in ("image_id", "sha256", "level", "seed", "out_path")],
        )  # fmt: skip

    def setup(self) -> None:
        """Load nothing: there is no heavy state."""

    def process(self, rows: Sequence[Row]) -> list[dict[str, Any]]:
        """Return one result a row; see the class."""
        return [self._one(row) for row in rows]

    def _one(self, row: Row) -> dict[str, Any]:
        preset = self.preset(row["level"])
        parameters = draw(preset, int(row["seed"]), row["image_id"])
        result: dict[str, Any] = {
            "target_id": row["image_id"],
            "lq_path": None,
            "lq_sha256": None,
            **parameters.to_row(),
            "level": row["level"],
            "error": None,
            "file_size": None,
            "file_mtime_ns": None,
        }
        source = self.root / row["path"]
        try:
            if sha256_file(source) != row["sha256"]:
                raise FfhqrefError(f"changed since table 'images' was made, run build again: {source}")
            target = inside(self.root, row["out_path"])
            low = apply(read_rgb(source, SIZE), parameters, preset)
        except (FfhqrefError, OSError) as error:
            result["error"] = one_line(error)
            return result
        try:
            data = save_png(target, low)
        except (FfhqrefError, OSError) as error:
            if cannot_write(error):
                raise
            result["error"] = one_line(error)
            return result
        result |= {"lq_path": row["out_path"], "lq_sha256": sha256_bytes(data)}
        return result | file_stamp(target)

    def intact(self, row: Row, result: Row) -> bool:
        """Return whether the LQ file is there and unchanged; a remembered failure stands unless retried."""
        if result["error"] is not None:
            return not self.retry_failed
        return file_intact(self.root / row["out_path"], result, str(result["lq_sha256"]))
