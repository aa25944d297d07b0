"""The restorer `faceme`: published behaviour, or with the LoRA that the published code forgets to apply."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError, ImageError, did_you_mean
from ffhqref.core.hashing import sha256_file
from ffhqref.restorers.base import RestorationBatch, RestorerInfo
from ffhqref.weights.files import Weights
from ffhqref.weights.tensors import holding
from ffhqref.zoo.faceme.config import FaceMeConfig
from ffhqref.zoo.shared.model_folder import part_weights, small_files, weight_file
from ffhqref.zoo.shared.network import NetworkRestorer

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from ffhqref.zoo.faceme.faces import FaceFinder, ReferenceFace
    from ffhqref.zoo.faceme.model import FaceMe
    from ffhqref.zoo.faceme.schedule import SamplerDraws

PRESETS = {"published": False, "lora": True}
"""Whether PhotoMaker's LoRA is merged. ``published``: no, since the published scripts never do; ``lora``: repaired."""

INFO = RestorerInfo(
    name="faceme",
    summary="SDXL with a ControlNet; CLIP and ArcFace features of the references as words of the prompt",
    min_references=1,
    max_references=4,
    input_size=512,
    uses_seed=True,
    licence="Pi-Lab License 1.0, non-commercial (weights; antelopev2 too); the implementation is Apache-2.0",
    commercial_use=False,
    trained_on=("FFHQ",),
    recognisers=("antelopev2-glintr100",),
    paper="Liu et al., FaceMe, AAAI 2025, arXiv 2501.05177",
    weights=(
        "realvisxl-3",
        "faceme-controlnet",
        "faceme-mix",
        "photomaker-v1",
        "antelopev2-scrfd",
        "antelopev2-glintr100",
    ),
    verified_against="outputs of the published script (commit 8973f65) on random weights: latents within 1e-4 "
    "relative, 8-bit values equal but for one level on 0.05 %; detection and ArcFace not",
)

_SMALL = (
    "scheduler/scheduler_config.json",
    "unet/config.json",
    "vae/config.json",
    "text_encoder/config.json",
    "text_encoder_2/config.json",
    "tokenizer/vocab.json",
    "tokenizer/merges.txt",
    "tokenizer_2/vocab.json",
    "tokenizer_2/merges.txt",
)
"""Files of the base folder that results depend on, besides the weights."""


class FaceMeRestorer(NetworkRestorer):
    """FaceMe as a restorer. Networks are loaded on the first call of `restore`.

    The published script draws the VAE's sample and the start noise from an unseeded generator, and the step noise
    from one generator for a whole folder. Here each case draws all of it from its own seed. A reference without a
    face stops the published script; here it fails the case, with the reason. Sides must be multiples of 8.

    Args:
        base: folder of the SDXL model RealVisXL V3.0 in the layout of diffusers; None: from the weights folder.
        controlnet: folder of FaceMe's ControlNet; None: from the weights folder.
        mix: FaceMe's ``mix.safetensors``, or its folder; None: from the weights folder.
        photomaker: ``photomaker-v1.bin``; None: from the weights folder.
        detector: ``scrfd_10g_bnkps.onnx`` of insightface's antelopev2; None: from the weights folder or insightface's.
        arcface: ``glintr100.onnx`` of the same; None: likewise.
        config: widths of the parts without a ``config.json``: a mapping, a YAML or JSON file, or None (released).
        preset: ``published`` (PhotoMaker's LoRA is not applied, as in training) or ``lora`` (applied).
        steps: DDPM steps.
        guidance_scale: 1 switches guidance off.
        color_correction: wavelet transfer of the LQ image's colours; on in the published command, off in its code.
        prompt: positive prompt, with the key word once.
        negative_prompt: the published one equals the positive one.
        key_word: its token gives way to the references' tokens.
        max_references: the first so many of a case are used; None: all. Trained with 1 to 4.
        noise_device: where noise is drawn: ``cpu`` is the same on every machine.
        dtype: of U-Net and ControlNet: ``float16`` (as published), ``bfloat16`` or ``float32``; ``auto`` is float16
            on CUDA, float32 elsewhere.
        device: ``auto`` takes CUDA, then MPS, then the CPU.
        faces: finds faces and gives ArcFace vectors instead of the two ONNX files (`faces.FaceFinder`), or a mapping
            of `faces.make_finder`, for weights that were trained on another embedder.
        info: facts to change, for other weights in the same architecture (``{"input_size": 64, …}``).

    Raises:
        ConfigError: an unknown preset, setting or width.
        WeightsError: a file is missing, damaged, or not the published one.
    """

    info = INFO
    cache_ignored_options = ("base", "controlnet", "mix", "photomaker", "detector", "arcface")

    def __init__(
        self,
        base: str | Path | None = None,
        controlnet: str | Path | None = None,
        mix: str | Path | None = None,
        photomaker: str | Path | None = None,
        detector: str | Path | None = None,
        arcface: str | Path | None = None,
        *,
        config: FaceMeConfig | Mapping[str, Any] | str | Path | None = None,
        preset: str = "published",
        steps: int = 50,
        guidance_scale: float = 5.0,
        color_correction: bool = True,
        prompt: str = "A photo of face.",
        negative_prompt: str = "A photo of face.",
        key_word: str = "face",
        max_references: int | None = 4,
        noise_device: str = "cpu",
        dtype: str = "auto",
        device: str = "auto",
        faces: FaceFinder | Mapping[str, Any] | None = None,
        info: Mapping[str, Any] | None = None,
    ) -> None:
        if preset not in PRESETS:
            raise ConfigError(f"unknown preset '{preset}'.{did_you_mean(preset, PRESETS)} Known: {', '.join(PRESETS)}")
        if dtype not in ("auto", "float32", "bfloat16", "float16"):
            raise ConfigError(f"dtype must be auto, float32, bfloat16 or float16, not '{dtype}'")
        if max_references is not None and max_references < 1:
            raise ConfigError(f"max_references must be at least 1, or null for all, not {max_references}")
        self.config = FaceMeConfig.load(config)
        named: dict[str, str | Path | None] = {
            "realvisxl-3": None if base is None else weight_file(Path(base) / "unet"),
            "faceme-controlnet": None if controlnet is None else weight_file(Path(controlnet)),
            "faceme-mix": Path(mix) / "mix.safetensors" if mix is not None and Path(mix).is_dir() else mix,
            "photomaker-v1": photomaker,
        }
        if faces is None:
            named.update({"antelopev2-scrfd": detector, "antelopev2-glintr100": arcface})
        super().__init__(named, device)
        self._base = self.files["realvisxl-3"].path.parent.parent
        for part, stem in (
            ("vae", "diffusion_pytorch_model"),
            ("text_encoder", "model"),
            ("text_encoder_2", "model"),
        ):
            self.files[f"realvisxl-3/{part}"] = part_weights(f"realvisxl-3/{part}", self._base / part, stem)
        self._small = self._small_files()
        self.weights_sha256 = {name: file.sha256 for name, file in self.files.items()}
        self.weights_sha256 |= {file.name: file.sha256 for file in self._small}
        self.preset = preset
        self.steps = steps
        self.guidance_scale = guidance_scale
        self.color_correction = color_correction
        self.noise_device = noise_device
        self._prompts = (prompt, negative_prompt, key_word)
        self._dtype = dtype
        if isinstance(faces, Mapping):
            from ffhqref.zoo.faceme.faces import make_finder

            faces = make_finder(faces)
        self._faces = faces
        self._model: FaceMe | None = None
        try:
            self.info = dataclasses.replace(INFO, max_references=max_references, **(info or {}))
        except TypeError as error:
            raise ConfigError(f"faceme: info has an unknown entry: {error}") from None

    def _small_files(self) -> list[Weights]:
        """Return the base folder's configs and tokenizers, and the ControlNet's config, as they are now."""
        controlnet = self.files["faceme-controlnet"].path.parent / "config.json"
        found = small_files("realvisxl-3", self._base, _SMALL)
        if controlnet.is_file():
            found.append(
                Weights("faceme-controlnet/config", controlnet.name, controlnet, sha256_file(controlnet), None)
            )
        return found

    @property
    def faces(self) -> FaceFinder:
        """What finds faces in references, loaded on first use.

        Raises:
            DependencyError: insightface or onnxruntime is not installed.
            WeightsError: a file is not the network it should be.
        """
        if self._faces is None:
            from ffhqref.zoo.faceme.faces import InsightFaces

            files = [self.files[name] for name in ("antelopev2-scrfd", "antelopev2-glintr100")]
            self._faces = InsightFaces(*files, device=self.device)
        return self._faces

    @property
    def model(self) -> FaceMe:
        """The networks, loaded on first use.

        Raises:
            ConfigError: the key word does not stand in the prompt once.
            WeightsError: a part is damaged, or of other names or shapes.
        """
        if self._model is None:
            import torch

            from ffhqref.zoo.faceme.model import FaceMe, Files, Prompts

            dtype = self._dtype
            if dtype == "auto":
                dtype = "float16" if self.device.startswith("cuda") else "float32"
            paths = {name: weights.path for name, weights in self.files.items()}
            with holding([*self.files.values(), *self._small]):
                self._model = FaceMe(
                    Files(self._base, paths["faceme-controlnet"].parent, paths["faceme-mix"], paths["photomaker-v1"]),
                    self.config,
                    Prompts(*self._prompts),
                    lora=PRESETS[self.preset],
                    device=self.device,
                    dtype=getattr(torch, dtype),
                )
        return self._model

    def draws(self, seed: int, height: int, width: int) -> SamplerDraws:
        """Return the randomness of a case with that seed and an image of that size."""
        from ffhqref.zoo.faceme.schedule import SamplerDraws

        shape = (
            1,
            self.model.vae.config.latent_channels,
            height // self.model.reduction,
            width // self.model.reduction,
        )
        return SamplerDraws.of_seed(seed, shape, self.steps, self.noise_device)

    def restore(self, batch: RestorationBatch) -> torch.Tensor:
        """Return float32 [B, 3, H, W] in 0..1 RGB on the CPU, on 8-bit levels; see `base.Restorer`.

        Raises:
            ImageError: a reference without a face, or sides that are no multiples of 8.
        """
        import torch

        from ffhqref.core.images import to_tensor, to_uint8

        height, width = batch.lq.shape[2:]
        unit = self.model.reduction
        if height % unit or width % unit:
            raise ImageError(f"faceme takes images whose sides are multiples of {unit}, not {width}x{height}")
        made = []
        # one by one: the way through 8 bit would make a level of the differences that a batch makes
        for picture, references, seed in zip(batch.lq, batch.references, batch.seeds, strict=True):
            used = list(to_uint8(references[: self.info.max_references]))
            identity = self.model.identity_tokens(used, self._found(used))
            control = _signed(picture[None].cpu())
            latent = self.model.sample(control, identity, self.draws(seed, height, width), self.guidance_scale)
            made.append(self._finished(latent, control))
        return to_tensor(made) if made else torch.zeros_like(batch.lq)

    def _finished(self, latent: torch.Tensor, control: torch.Tensor) -> NDArray[np.uint8]:
        from ffhqref.zoo.faceme.model import finish

        return finish(self.model.decode(latent), control if self.color_correction else None)

    def _found(self, pictures: list[NDArray[np.uint8]]) -> list[ReferenceFace]:
        found = []
        for number, picture in enumerate(pictures, 1):
            face = self.faces(picture)
            if face is None:
                raise ImageError(f"no face found in reference {number} of {len(pictures)} ({self.faces.signature})")
            found.append(face)
        return found


def _signed(pictures: torch.Tensor) -> torch.Tensor:
    """Return images of 0..1 in −1..1, those on 8-bit levels as the published script computes: in double.

    The last bit matters, since the result is cut off to 8 bit.
    """
    import torch

    levels = (pictures * 255).round()
    exact = torch.where(levels / 255 == pictures, levels.double() / 255, pictures.double())
    return (exact * 2 - 1).float()
