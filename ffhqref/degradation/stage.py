"""The stage that degrades images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ffhqref.core.errors import FfhqrefError, cannot_write, one_line
from ffhqref.core.hashing import content_key, sha256_bytes
from ffhqref.core.images import SIZE, encode_png, read_rgb, save_png
from ffhqref.degradation.model import Degradation, get_degradation
from ffhqref.degradation.parameters import draw
from ffhqref.degradation.steps import apply
from ffhqref.engine.base import Stage
from ffhqref.engine.files import file_intact, file_stamp
from ffhqref.store.workspace import owned


@dataclass(frozen=True)
class DegradeRow:
    """An image to degrade."""

    image_id: str
    path: str
    """Of table ``images``; a relative path is taken from the root of the workspace."""
    sha256: str
    level: str
    """Name of a preset."""
    seed: int
    """Of the run."""
    out_path: str
    """Relative to the root of the workspace."""


@dataclass(frozen=True)
class DegradeResult:
    """A row of the table ``degradations``; size and time of the file.

    Where the image cannot be used, ``lq_path`` and ``lq_sha256`` are None and ``error`` says why.
    """

    target_id: str
    level: str
    lq_path: str | None
    lq_sha256: str | None
    kernel: str
    sigma_x: float
    sigma_y: float
    rotation: float
    scale: float
    noise_sigma: float
    jpeg_quality: float
    seed: int
    noise_skip: int
    noise_carry: float | None
    grey_noise_draw: float | None
    colour_shift: Sequence[float] | None
    grey: bool
    error: str | None
    file_size: int | None
    file_mtime_ns: int | None


class DegradeStage(Stage[DegradeRow, DegradeResult]):
    """Make one LQ image per row and write it as a 512x512 PNG.

    Args:
        root: workspace that paths in rows and results are relative to.
        degradations: own ones by level, beside `DEGRADATIONS`.
        retry_failed: repeat rows that failed in an earlier run. Otherwise their failure is kept until the image
            changes.
        writes: False: see `rehearsal`.
    """

    name = "degrade"
    version = "1"
    batch_size = 8

    def __init__(
        self,
        root: str | Path,
        degradations: Mapping[str, Degradation] | None = None,
        retry_failed: bool = False,
        *,
        writes: bool = True,
    ) -> None:
        self.root = Path(root)
        self.degradations = dict(degradations or {})
        self.retry_failed = retry_failed
        self.writes = writes

    def rehearsal(self) -> DegradeStage:
        """Return the stage that writes no image: hashes are those that the files would have."""
        return DegradeStage(self.root, self.degradations, self.retry_failed, writes=False)

    def degradation(self, level: str) -> Degradation:
        """Return the degradation of a level.

        Raises:
            ConfigError: unknown level, with the nearest one.
        """
        if level not in self.degradations:
            self.degradations[level] = get_degradation(level)
        return self.degradations[level]

    def key(self, row: DegradeRow) -> str:
        """Return the content key: image, preset, seed, path of the result, version of the code and of OpenCV."""
        import cv2

        rules = self.degradation(row.level).rules()
        return content_key(
            self.name, self.version, cv2.__version__, rules,
            [row.image_id, row.sha256, row.level, row.seed, row.out_path],
        )  # fmt: skip

    def process(self, rows: Sequence[DegradeRow]) -> list[DegradeResult]:
        """Degrade the images."""
        return [self._one(row) for row in rows]

    def _one(self, row: DegradeRow) -> DegradeResult:
        preset = self.degradation(row.level)
        parameters = draw(preset, row.seed, row.image_id)
        failed = DegradeResult(
            **{"target_id": row.image_id, **parameters.to_row(), "level": row.level},
            lq_path=None, lq_sha256=None, error=None, file_size=None, file_mtime_ns=None,
        )  # fmt: skip
        source = self.root / row.path
        try:
            target = owned(self.root, row.out_path)
            low = apply(read_rgb(source, SIZE, sha256=row.sha256), parameters, preset)
        except (FfhqrefError, OSError) as error:
            return replace(failed, error=one_line(error))
        try:
            data = save_png(target, low) if self.writes else encode_png(low)
        except (FfhqrefError, OSError) as error:
            if cannot_write(error):
                raise
            return replace(failed, error=one_line(error))
        made = replace(failed, lq_path=row.out_path, lq_sha256=sha256_bytes(data))
        if not self.writes:
            return made
        stamp = file_stamp(target)
        return replace(made, file_size=stamp["file_size"], file_mtime_ns=stamp["file_mtime_ns"])

    def intact(self, row: DegradeRow, result: DegradeResult) -> bool:
        """Return whether the LQ file is there and unchanged; a stored failure stands unless retried."""
        if result.error is not None:
            return not self.retry_failed
        return not self.writes or file_intact(self.root / row.out_path, result, str(result.lq_sha256))
