"""Outputs that exist already: a folder of images takes the place of a method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ffhqref.core.errors import ConfigError, FfhqrefError, ImageError
from ffhqref.core.images import check_square, read_rgb, resize, to_tensor
from ffhqref.restorers.base import PartialResult, RestorationBatch, Restorer, RestorerInfo, info_of
from ffhqref.restorers.match import CaseName, Matched, match_outputs

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Outputs(Restorer):
    """Takes the images of a folder as a method's outputs, matched by name (`ffhqref.restorers.match`).

    An output counts by the content of its file: a moved folder changes nothing, a replaced file is scored again.

    Args:
        path: the folder.
        pattern: names of the files, with {id}, {lq} (name of the LQ file) and {benchmark}: {id}_00.png.
        pairs: CSV with the columns case_id (or lq) and output, in place of names.
        resize: resize outputs of another size (bicubic); otherwise they fail.
        missing: what a case without a file is: a failure, or left out (the method is then not ranked).
        info: what is known of the method, fields of `RestorerInfo`: {trained_on: [FFHQ], max_references: 5}.
    """

    info = RestorerInfo(
        name="outputs", summary="images that exist already (docs/restorers.md)", input_size=None,
        licence="that of the method", verified_against="outputs of other restorers: the same rows",
    )  # fmt: skip
    """Of the kind; an instance's own is what the options say."""
    batch_size = 8
    by_file = True
    cache_ignored_options = ("path", "pattern", "pairs", "missing", "info")

    def __init__(
        self,
        path: str | Path | None = None,
        pattern: str | None = None,
        pairs: str | Path | None = None,
        resize: bool = False,
        missing: Literal["fail", "ignore"] = "fail",
        info: Mapping[str, Any] | None = None,
    ) -> None:
        if path is None:
            raise ConfigError("the restorer 'outputs' needs the folder of the outputs: path=FOLDER")
        self.path = Path(path).expanduser().absolute()
        self.pattern, self.resize, self.missing = pattern, resize, missing
        self.pairs = None if pairs is None else Path(pairs).expanduser()
        self.info = info_of(info or {}, "restorer 'outputs'", name="outputs", verified_against="not run here")
        self.cache_key_options = {"resize": resize}

    def match(self, cases: Sequence[CaseName], method: str) -> Matched:
        """Return the files of some cases."""
        found = match_outputs(self.path, cases, what=method, pattern=self.pattern, pairs=self.pairs)
        if self.missing == "fail":
            return found
        return Matched(found.files, (), (*found.missing, *found.absent), found.remarks)

    def restore(self, batch: RestorationBatch) -> PartialResult:
        """Return the outputs of the cases, float32 [B, 3, H, W] in 0..1."""
        if not batch.files:
            raise FfhqrefError("restorer 'outputs' takes files for the cases of a workspace: it is no part of another")
        images, reasons = list[Any](), dict[int, str]()
        height, width = batch.lq.shape[-2:]
        for index, file in enumerate(batch.files):
            try:
                if file is None:
                    raise ImageError(f"no file for this case in {self.path}")
                images.append(self._read(*file, (height, width)))
            except FfhqrefError as error:
                images.append(None)
                reasons[index] = str(error)
        blank = _blank(height, width)
        return PartialResult(to_tensor([blank if image is None else image for image in images]), reasons)

    def _read(self, path: str, sha256: str, size: tuple[int, int]) -> NDArray[np.uint8]:
        image = read_rgb(path, sha256=sha256)
        if image.shape[:2] == size:
            return image
        if not self.resize:
            have, want = (f"{shape[1]}x{shape[0]}" for shape in (image.shape, size))
            raise ImageError(f"{have} pixels, expected {want}; resize=true resizes such outputs (bicubic): {path}")
        check_square(image.shape[1], image.shape[0], path)
        return resize(image, size[0])


def _blank(height: int, width: int) -> NDArray[np.uint8]:
    import numpy as np

    return np.zeros((height, width, 3), np.uint8)
