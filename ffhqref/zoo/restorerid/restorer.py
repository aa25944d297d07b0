"""The restorer `restorerid`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError, DependencyError, ImageError, WeightsError, did_you_mean
from ffhqref.restorers.base import RestorationBatch, RestorerInfo
from ffhqref.weights.files import require
from ffhqref.zoo.restorerid.config import RestorerIDConfig
from ffhqref.zoo.shared.aligned import need_package, resized
from ffhqref.zoo.shared.architecture import read_architecture
from ffhqref.zoo.shared.network import NetworkRestorer, unsigned

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from ffhqref.metrics.base import Metric
    from ffhqref.zoo.faceme.schedule import SamplerDraws
    from ffhqref.zoo.restorerid.faces import FaceFinder, ReferenceFace
    from ffhqref.zoo.restorerid.model import RestorerID

COLOUR_CORRECTIONS = ("wavelet", "adain", "nofix")
DTYPES = ("auto", "float32", "bfloat16", "float16")

INFO = RestorerInfo(
    name="restorerid",
    summary="Stable Diffusion 1.5 steered by the LQ image's structure and by identity tokens of one reference",
    min_references=1,
    max_references=1,
    input_size=512,
    uses_seed=True,
    licence="Apache-2.0 by its README, Stable Diffusion's CreativeML OpenRAIL-M in it (weights); insightface buffalo_l "
    "and FaceID-plus: non-commercial; the implementation is Apache-2.0",
    commercial_use=False,
    trained_on=("FFHQ", "VGGFace2", "CelebRef-HQ", "LAION"),
    recognisers=("buffalo-l-r50",),
    paper="Ying et al., RestorerID, arXiv 2411.14125",
    weights=("restorerid", "clip-vocabulary", "clip-merges", "buffalo-l-detector", "buffalo-l-r50", "musiq"),
    verified_against="outputs of the published script (commit 157e2883) on random weights: latents within 1e-4 "
    "relative, 8-bit values equal but for one level on 0.15 %; detection, ArcFace and MUSIQ not",
)


class RestorerIDRestorer(NetworkRestorer):
    """RestorerID as a restorer. Networks are loaded on the first call of `restore`.

    The published script takes one image a call and draws after it has built its networks, so that its seed does not
    tell its noise. Here each case draws from its own seed. A reference without a face stops the published script; here
    it fails the case, with the reason. The script writes an image of sides cut down to multiples of 32 (and stops
    where they are no multiples of 64) under the name of its input, a JPEG where that is one; here the output has the
    input's size.

    Args:
        checkpoint: ``RestorerIDFull.ckpt``; None: from the weights folder.
        tokenizer: folder of CLIP's ``vocab.json`` and ``merges.txt``; None: from the weights folder.
        adapter: ``ip-adapter-faceid-plus_sd15.bin``, needed only with a checkpoint without the identity projection.
        image_encoder: weights of CLIP ViT-H/14, needed only with a checkpoint without them.
        detector: ``det_10g.onnx`` of insightface's buffalo_l; None: from the weights folder or insightface's.
        arcface: ``w600k_r50.onnx`` of the same; None: likewise.
        config: widths: a mapping, a YAML or JSON file, or None (released).
        steps: DDIM steps. The last one changes nothing, as published.
        eta: 1 is ancestral sampling, 0 is deterministic.
        guidance_scale: 1 switches guidance off.
        color_correction: ``wavelet`` (the script's default), ``adain`` (the paper, by the script's help) or ``nofix``.
        prompt: positive prompt.
        negative_prompt: negative prompt.
        identity_scale: weight of the identity in the cross-attention; None: exp(0.1 · (9.5 − MUSIQ of the input)).
        noise_device: where noise is drawn: ``cpu`` is the same on every machine.
        dtype: of U-Net, structure encoder and image encoder: ``float16`` (as published), ``bfloat16`` or ``float32``;
            ``auto`` is float16 on CUDA, float32 elsewhere.
        device: ``auto`` takes CUDA, then MPS, then the CPU.
        faces: finds faces and gives ArcFace vectors instead of the two ONNX files (`faces.FaceFinder`), or a mapping
            of `faces.make_finder`, for weights that were trained on another embedder.
        info: facts to change, for other weights in the same architecture (``{"input_size": 64, …}``).

    Raises:
        ConfigError: an unknown setting or width.
        DependencyError: a package is missing.
        WeightsError: a file is missing, damaged, or not the published one.
    """

    info = INFO
    quantization = "truncate"
    cache_ignored_options = ("checkpoint", "tokenizer", "adapter", "image_encoder", "detector", "arcface")

    def __init__(
        self,
        checkpoint: str | Path | None = None,
        tokenizer: str | Path | None = None,
        adapter: str | Path | None = None,
        image_encoder: str | Path | None = None,
        detector: str | Path | None = None,
        arcface: str | Path | None = None,
        *,
        config: RestorerIDConfig | Mapping[str, Any] | str | Path | None = None,
        steps: int = 50,
        eta: float = 1.0,
        guidance_scale: float = 4.0,
        color_correction: str = "wavelet",
        prompt: str = "best quality, high quality",
        negative_prompt: str = ("cartoon, 3d, paint, monochrome, lowres, bad anatomy, worst quality, low quality"),
        identity_scale: float | None = None,
        noise_device: str = "cpu",
        dtype: str = "auto",
        device: str = "auto",
        faces: FaceFinder | Mapping[str, Any] | None = None,
        info: Mapping[str, Any] | None = None,
    ) -> None:
        self.config = read_architecture(RestorerIDConfig, config)
        _check(steps, self.config.diffusion.timesteps, eta, color_correction, dtype)
        folder = None if tokenizer is None else Path(tokenizer)
        named: dict[str, str | Path | None] = {
            "restorerid": checkpoint,
            "clip-vocabulary": folder and folder / "vocab.json",
            "clip-merges": folder and folder / "merges.txt",
        }
        if adapter is not None:
            named["ip-adapter-faceid-plus"] = adapter
        if image_encoder is not None:
            named["clip-vit-h-14"] = image_encoder
        if faces is None:
            named.update({"buffalo-l-detector": detector, "buffalo-l-r50": arcface})
        super().__init__(named, device)
        need_package("restorerid", "diffusers", "diffusion")
        self.steps, self.eta = steps, eta
        self.guidance_scale = guidance_scale
        self.color_correction = color_correction
        self.noise_device = noise_device
        self.prompts = (prompt, negative_prompt)
        self._dtype = dtype
        self._scale = identity_scale
        self._musiq: Metric | None = None
        if identity_scale is None:
            self._musiq = _musiq(self.device)
            self.weights_sha256 = {**self.weights_sha256, "musiq": require("musiq").sha256}
        if isinstance(faces, Mapping):
            from ffhqref.zoo.restorerid.faces import make_finder

            faces = make_finder(faces)
        self._faces = faces
        self._model: RestorerID | None = None
        try:
            self.info = dataclasses.replace(INFO, **(info or {}))
        except TypeError as error:
            raise ConfigError(f"restorerid: info has an unknown entry: {error}") from None

    @property
    def faces(self) -> FaceFinder:
        """What finds faces in references, loaded on first use.

        Raises:
            DependencyError: insightface or onnxruntime is not installed.
            WeightsError: a file is not the network it should be.
        """
        if self._faces is None:
            from ffhqref.zoo.restorerid.faces import InsightFaces

            files = [self.files[name] for name in ("buffalo-l-detector", "buffalo-l-r50")]
            self._faces = InsightFaces(*files, device=self.device)
        return self._faces

    @property
    def model(self) -> RestorerID:
        """The networks, loaded on first use.

        Raises:
            WeightsError: a part is damaged, or of other names or shapes.
        """
        if self._model is None:
            import torch

            from ffhqref.core.compat import ensure_torchvision

            ensure_torchvision()
            from ffhqref.zoo.restorerid.model import Files, RestorerID

            dtype = self._dtype
            if dtype == "auto":
                dtype = "float16" if self.device.startswith("cuda") else "float32"
            files = self.files
            self._model = RestorerID(
                Files(
                    checkpoint=files["restorerid"],
                    vocabulary=files["clip-vocabulary"],
                    merges=files["clip-merges"],
                    adapter=files.get("ip-adapter-faceid-plus"),
                    image_encoder=files.get("clip-vit-h-14"),
                ),
                self.config,
                self.prompts,
                device=self.device,
                dtype=getattr(torch, dtype),
            )
        return self._model

    def draws(self, seed: int, height: int, width: int) -> SamplerDraws:
        """Return the randomness of a case with that seed and an image of that size."""
        from ffhqref.zoo.faceme.schedule import SamplerDraws

        shape = (1, 4, height // self.config.reduction, width // self.config.reduction)
        return SamplerDraws.of_seed(seed, shape, self.steps, self.noise_device)

    def identity_scale(self, picture: torch.Tensor) -> float:
        """Return the weight of the identity for an LQ image, float32 [1, 3, H, W] in 0..1."""
        if self._musiq is None:
            assert self._scale is not None
            return self._scale
        from ffhqref.metrics.base import MetricBatch
        from ffhqref.zoo.restorerid.model import identity_scale

        return identity_scale(float(self._musiq(MetricBatch(picture))[0]))

    def restore(self, batch: RestorationBatch) -> torch.Tensor:
        """Return float32 [B, 3, H, W] in 0..1 RGB on the CPU; see `base.Restorer`.

        Raises:
            ImageError: a reference without a face, or sides that the U-Net does not take.
        """
        import torch

        from ffhqref.core.images import to_uint8

        made = [
            resized(self.restored(picture, to_uint8(references[:1])[0], seed), batch.lq.shape[-2:])
            # one by one, as published: eight bits would make a level of the differences that a batch makes
            for picture, references, seed in zip(to_uint8(batch.lq), batch.references, batch.seeds, strict=True)
        ]
        return torch.cat(made) if made else torch.zeros_like(batch.lq)

    def restored(self, picture: NDArray[np.uint8], reference: NDArray[np.uint8], seed: int) -> torch.Tensor:
        """Return what the published script cuts off to 8 bit, float32 [1, 3, H', W'] in 0..1 on the CPU.

        Args:
            picture: the LQ image, uint8 RGB [H, W, 3]; H' and W' are its sides cut down to multiples of 32.
            reference: uint8 RGB [h, w, 3].
            seed: of the case.

        Raises:
            ImageError: a reference without a face, or sides that the U-Net does not take.
        """
        from ffhqref.core.images import to_tensor
        from ffhqref.zoo.restorerid.schedule import Schedule

        model = self.model  # before the next line, which imports the same module
        from ffhqref.zoo.restorerid.model import COLOURS, fitted, to_signed

        picture = fitted(picture, self.config.unit)
        identity = model.identity(reference, self._face(reference))
        draws = self.draws(seed, *picture.shape[:2])
        given = to_signed(picture)
        latent = model.sample(
            model.latent(given, draws.posterior),
            identity,
            draws,
            Schedule(self.steps, self.eta, self.config.diffusion),
            scale=self.identity_scale(to_tensor([picture])),
            guidance_scale=self.guidance_scale,
        )
        return unsigned(COLOURS[self.color_correction](model.decode(latent).cpu(), given))

    def _face(self, reference: NDArray[np.uint8]) -> ReferenceFace:
        face = self.faces(reference)
        if face is None:
            raise ImageError(f"no face found in the reference ({self.faces.signature})")
        return face


def _check(steps: int, most: int, eta: float, color_correction: str, dtype: str) -> None:
    choices = (("color_correction", color_correction, COLOUR_CORRECTIONS), ("dtype", dtype, DTYPES))
    for name, value, known in choices:
        if value not in known:
            raise ConfigError(f"{name}={value}: expected {', '.join(known)}.{did_you_mean(str(value), known)}")
    if not 1 <= steps <= most:
        raise ConfigError(f"steps must be from 1 to {most}, not {steps}")
    if not 0 <= eta <= 1:
        raise ConfigError(f"eta must be from 0 to 1, not {eta}")


def _musiq(device: str) -> Metric:
    """Return the metric that judges inputs.

    Raises:
        DependencyError: pyiqa is not installed.
        WeightsError: its weights are not here.
    """
    from ffhqref.metrics.base import MetricRuntime
    from ffhqref.metrics.iqa import MUSIQ

    try:
        return MUSIQ(MetricRuntime(device))
    except (DependencyError, WeightsError) as error:
        raise type(error)(
            "restorer 'restorerid' weighs the identity by the input's MUSIQ, which cannot be computed here "
            f"({error}); or name the weight: identity_scale=0.4 (exp(0.1 * (9.5 - MUSIQ)))"
        ) from None
