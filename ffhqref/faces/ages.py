"""Ages estimated by a network, for images whose age no table tells.

An estimate is off by years (insightface states a mean error of several), and by more for children and the old: it is
good for order and for wide gaps. The source is recorded with every age, so that a table's ages and a network's are
never mixed up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ffhqref.core.errors import ConfigError, DependencyError, ImageError, WeightsError, one_line
from ffhqref.core.hashing import content_key
from ffhqref.core.images import SIZE, read_rgb
from ffhqref.core.registry import Registry
from ffhqref.datasets.stage import ImageRow
from ffhqref.engine.base import Stage
from ffhqref.faces.base import unchanged
from ffhqref.weights.tensors import held

if TYPE_CHECKING:
    from numpy.typing import NDArray


ALIGNED_BOX = (73.0, 97.0, 439.0, 463.0)
"""Where a detector's box lies in an aligned 512 px face: left, top, right, bottom; a square because genderage looks
at the longer side only. Rounded from YuNet and CenterFace on FFHQ's and London's images: centre (256, 280), longer
side 350 to 390 px, mostly its height."""


class AgeModel(Protocol):
    """A network that tells ages.

    Attributes:
        signature: network, weights hash and crop in one line; becomes the source in the ``ages`` table.
    """

    signature: str

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return years, float32 [B], from aligned faces, uint8 RGB [B, 512, 512, 3]."""
        ...


class InsightfaceAge:
    """The genderage network of an insightface pack (96 px faces; weights for non-commercial research only).

    insightface's own reading of it, on the fixed box `ALIGNED_BOX`: images here are aligned, so no detector is run.
    Ages are whole years.

    Args:
        path: pack folder such as ``~/.insightface/models/buffalo_l``, or the network's ONNX file.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        try:
            from insightface.model_zoo import get_model
        except ImportError:
            raise DependencyError("age model 'insightface' needs insightface: pip install 'ffhqref[faces]'") from None
        if path is None:
            raise ConfigError("age model 'insightface' needs ages.path=FOLDER (a model pack) or FILE.onnx")
        folder = Path(path).expanduser()
        files = sorted(folder.rglob("*genderage*.onnx")) if folder.is_dir() else [folder]
        if len(files) != 1 or not files[0].is_file():
            found = f"holds {len(files)} files *genderage*.onnx, expected one" if folder.is_dir() else "is no file"
            raise WeightsError(f"age model 'insightface': {folder} {found}; set ages.path to the network's ONNX file")
        with held(files[0]) as file:
            try:
                self._network: Any = get_model(str(file.name))
            except Exception as error:  # noqa: BLE001 - onnx and onnxruntime raise their own unrelated types
                reason = one_line(error)
                raise WeightsError(
                    f"age model 'insightface': {files[0]} is no usable ONNX network ({reason})"
                ) from None
        if getattr(self._network, "taskname", "") != "genderage":
            raise WeightsError(f"age model 'insightface': {files[0]} is no genderage network (96 px in, 3 numbers out)")
        self.signature = f"insightface:{files[0].stem}:{file.sha256[:12]}|fixed box"

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return years, float32 [B], from aligned faces, uint8 RGB [B, 512, 512, 3]."""
        from insightface.app.common import Face

        found = []
        for image in images:
            face = Face(bbox=np.array(ALIGNED_BOX))
            self._network.get(np.ascontiguousarray(image[..., ::-1]), face)
            found.append(float(face["age"]))
        return np.array(found, np.float32)


AGE_MODELS: Registry[Callable[..., AgeModel]] = Registry(
    "age model", {"insightface": "ffhqref.faces.ages:InsightfaceAge"}, "ffhqref.age_models"
)
"""Every age model by name; other packages add theirs through the entry point group ``ffhqref.age_models``."""


def make_age_model(name: str, **options: Any) -> AgeModel:
    """Return the age model of that name.

    Args:
        name: a name of `AGE_MODELS`.
        options: of its constructor, for instance ``path``.
    """
    return AGE_MODELS.make(name, **options)


@dataclass(frozen=True)
class AgeResult:
    """An estimated age, or why there is none."""

    age: float | None = None
    """Years."""
    error: str | None = None


class AgeStage(Stage[ImageRow, AgeResult]):
    """Estimate the ages of people on aligned images.

    Args:
        root: root of the images.
        model: name in `AGE_MODELS`.
        options: of the model.
    """

    name = "ages"
    version = "1"
    batch_size = 16

    def __init__(self, root: Path, model: str, options: Mapping[str, Any]) -> None:
        self.root = root
        self._name, self._options = model, dict(options)
        self._model: AgeModel | None = make_age_model(model, **self._options)
        self.signature = self._model.signature

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_model": None}  # networks do not pickle; a worker loads its own

    def key(self, row: ImageRow) -> str:
        """Return the content key."""
        return content_key(self.name, self.version, self.signature, row.sha256)

    def setup(self) -> None:
        """Load the network."""
        if self._model is None:
            self._model = unchanged(make_age_model(self._name, **self._options), self.signature)

    def process(self, rows: Sequence[ImageRow]) -> list[AgeResult]:
        """Estimate; an image that cannot be read, or an age outside 0 to 130, gets a reason and no age."""
        assert self._model is not None
        images: list[NDArray[np.uint8]] = []
        failed: list[AgeResult | None] = []
        for row in rows:
            try:
                images.append(read_rgb(self.root / row.path, SIZE, sha256=row.sha256))
                failed.append(None)
            except ImageError as error:
                failed.append(AgeResult(error=str(error)))
        years = iter(self._model(np.stack(images)) if images else ())
        return [result or _checked(float(next(years))) for result in failed]


def _checked(age: float) -> AgeResult:
    return AgeResult(age) if 0 <= age <= 130 else AgeResult(error=f"the network says {age:g} years")
