"""PGDiff: a whole diffusion chain from pure noise, each step pulled towards what the image should look like.

Yang et al., "PGDiff: Guiding Diffusion Models for Versatile Face Restoration via Partial Guidance" (arXiv
2309.10810). Behaviour: the published inference_pgdiff.py, tasks ``restoration`` and ``ref_restoration``. The U-Net
and its file are DifFace's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ffhqref.core.errors import ConfigError, FfhqrefError, did_you_mean
from ffhqref.core.images import to_uint8
from ffhqref.restorers.base import RestorationBatch, RestorerInfo
from ffhqref.weights.tensors import load_tensors
from ffhqref.zoo.pgdiff.config import PGDiffConfig
from ffhqref.zoo.shared.guided_diffusion.diffusion import Diffusion, Step
from ffhqref.zoo.shared.guided_diffusion.draws import Draws, SeededDraws
from ffhqref.zoo.shared.guided_diffusion.restorer import DiffusionRestorer, input_size, load_unet, loaded
from ffhqref.zoo.shared.network import unsigned

if TYPE_CHECKING:
    import torch

    from ffhqref.zoo.pgdiff.arcface import ArcFace
    from ffhqref.zoo.pgdiff.network import SmoothSemantics
    from ffhqref.zoo.shared.guided_diffusion.unet import GuidedUNet

INFO = RestorerInfo(
    name="pgdiff",
    summary="Full diffusion chain under partial guidance of a smooth guess, and of a reference's identity (PGDiff)",
    uses_seed=True,
    licence="S-Lab License 1.0 (weights, non-commercial); the implementation is Apache-2.0",
    commercial_use=False,
    trained_on=("FFHQ",),
    paper="Yang et al., PGDiff, NeurIPS 2023, arXiv 2309.10810",
    weights=("difface-diffusion", "pgdiff-restorer"),
    verified_against="outputs of the published code (February 2024) on random weights and stored draws: within 1e-4",
)

TASKS = ("restoration", "ref_restoration")


class PGDiff(DiffusionRestorer):
    """PGDiff as a restorer, blind or with one reference. Weights are loaded on the first call.

    A step costs the U-Net and the smooth-semantics network, with a reference also a pass forth and back through
    ArcFace; the published chain has 1000 of them (its README finds 100 enough: ``respacing="ddpm100"``).

    Args:
        path: ``iddpm_ffhq512_ema500000.pth``, DifFace's; None: from the weight registry.
        restorer_path: ``rrdb_iter_100000.pth``, the smooth-semantics network; None: from the weight registry.
        arcface_path: ``ms1mv3_arcface_r50_fp16.pth``, needed for references alone; None: from the weight registry.
        config: architecture, as a mapping or the path of a YAML or JSON file (`PGDiffConfig.load`); None: released.
        task: ``restoration`` (blind) or ``ref_restoration`` (the first reference of each case).
        guidance_scale: how hard each step is pulled; 0.05 (quality) to 0.1 (fidelity) by the README.
        respacing: steps kept of the chain (`guided_diffusion.diffusion.kept_times`); ``""``: all 1000.
        ss_weight: of the smooth semantics in the loss.
        ref_weight: of the reference's identity in the loss.
        N: passes at each index strictly between the two that follow, with a target made once.
        s_start: upper end of those indices, as a part of the full chain.
        s_end: lower end. Both count full-chain steps but are compared with respaced indices, as published: with few
            steps and the default ends no index is passed twice.
        noise: ``case``: from each case's seed; ``shared``: the same for all images, from `seed`, as published
            (whose numbers they are on the CPU).
        seed: of the shared noise.
        device: ``auto`` takes CUDA, then MPS, then the CPU.
        batch_size: cases at once.

    Raises:
        ConfigError: an unknown architecture or setting.
        WeightsError: a file is missing or not the published one.
    """

    info = INFO
    cache_ignored_options = ("path", "restorer_path", "arcface_path", "batch_size")
    quantization = "truncate"

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        restorer_path: str | Path | None = None,
        arcface_path: str | Path | None = None,
        config: PGDiffConfig | Mapping[str, Any] | str | Path | None = None,
        task: str = "restoration",
        guidance_scale: float = 0.1,
        respacing: str | Sequence[int] = "",
        ss_weight: float = 1.0,
        ref_weight: float = 25.0,
        N: int = 1,
        s_start: float = 1.0,
        s_end: float = 0.7,
        noise: str = "case",
        seed: int = 1234,
        device: str = "auto",
        batch_size: int = 1,
    ) -> None:
        if task not in TASKS:
            raise ConfigError(f"pgdiff: unknown task '{task}'.{did_you_mean(task, TASKS)} Known: {', '.join(TASKS)}")
        if noise not in ("case", "shared"):
            raise ConfigError(f"pgdiff: noise must be 'case' or 'shared', not '{noise}'")
        if isinstance(N, bool) or not isinstance(N, int) or N < 1:
            raise ConfigError(f"pgdiff: N={N}, expected a whole number of at least 1")
        self.config = PGDiffConfig.load(config)
        self.diffusion = Diffusion.respaced(respacing, self.config.steps)
        self.with_reference = task == "ref_restoration"
        self.guidance_scale = guidance_scale
        self.ss_weight = ss_weight
        self.ref_weight = ref_weight
        self.N = N
        self._repeated = range(int(s_end * self.config.steps) + 1, int(s_start * self.config.steps))
        self.noise = noise
        self.seed = seed
        self.batch_size = batch_size
        files = {"difface-diffusion": path, "pgdiff-restorer": restorer_path}
        if self.with_reference:
            files["pgdiff-arcface"] = arcface_path
        super().__init__(files, device)
        self.diffusion_side = self.config.size
        self.info = replace(
            INFO,
            min_references=int(self.with_reference),
            max_references=int(self.with_reference),
            input_size=input_size(self.config.size),
            uses_seed=noise == "case",
            trained_on=("FFHQ", "MS1MV3") if self.with_reference else INFO.trained_on,
            recognisers=("pgdiff-arcface",) if self.with_reference else (),
            weights=tuple(files),
        )

    @cached_property
    def unet(self) -> GuidedUNet:
        """The denoiser."""
        return load_unet(self.files["difface-diffusion"], self.config.unet, self.device)

    @cached_property
    def smooth_semantics(self) -> SmoothSemantics:
        """The network that guesses the blurred clean image."""
        from ffhqref.zoo.pgdiff.network import SmoothSemantics

        path = self.files["pgdiff-restorer"]
        tensors = load_tensors(path, wrappers=("state_dict",))
        # the file may hold what its training needed beside the network; the published loader passes over it too
        own = {name: value for name, value in tensors.items() if name.startswith(("time_embed.", "generator."))}
        network = loaded(lambda: SmoothSemantics(self.config.rrdb), own, path, self.device)
        assert isinstance(network, SmoothSemantics)
        return network

    @cached_property
    def arcface(self) -> ArcFace:
        """The identity network."""
        from ffhqref.zoo.pgdiff.arcface import ArcFace

        path = self.files["pgdiff-arcface"]
        network = loaded(lambda: ArcFace(self.config.arcface), load_tensors(path), path, self.device)
        assert isinstance(network, ArcFace)
        return network

    def draws(self, batch: RestorationBatch) -> Draws:
        """Return the draws of a batch: from its cases' seeds, or the shared ones."""
        if self.noise == "case":
            return super().draws(batch)
        shape = (3, self.diffusion_side, self.diffusion_side)
        return SeededDraws([self.seed] * len(batch), shape, self.device)

    def prepared(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return images [B, 3, H, W] of 0..1 as the networks take them, [B, 3, S, S] in −1..1.

        They go through 8 bits and OpenCV's bilinear resize, as files do in the published script.
        """
        import cv2
        import torch

        size = (self.config.size, self.config.size)
        resized = np.stack([cv2.resize(picture, size) for picture in to_uint8(pictures)])
        values = resized.astype(np.float32) / np.float32(127.5) - np.float32(1)
        return torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2))).to(self.device)

    def sample(self, y: torch.Tensor, references: torch.Tensor | None, draws: Draws) -> Iterator[Step]:
        """Yield the steps of the chain; the last one's state is the result.

        Args:
            y: low-quality images, [B, 3, S, S] in −1..1.
            references: one an image, [B, 3, S, S] in −1..1; None: blind.
            draws: the first is the start, and each pass takes one more, used or not.
        """
        from ffhqref.zoo.pgdiff.arcface import shrunk

        wanted = None if references is None else self.arcface(shrunk(references))
        x = draws()
        for index in range(len(self.diffusion) - 1, -1, -1):
            time = int(self.diffusion.times[index])
            target = self.smooth_semantics(x, y, time).clamp(-1.0, 1.0)
            for _ in range(self.N if index in self._repeated else 1):
                step = self._step(x, index, time, target, wanted, draws())
                yield step
                x = step.state

    def _step(
        self,
        x: torch.Tensor,
        index: int,
        time: int,
        target: torch.Tensor,
        wanted: torch.Tensor | None,
        draw: torch.Tensor,
    ) -> Step:
        output = self.unet(x, time)
        x0 = self.diffusion.foreseen(x, index, output)
        mean, log_variance = self.diffusion.posterior(x, x0, index, output)
        gradient = 2.0 * self.ss_weight * (x0 - target)
        if wanted is not None:
            from ffhqref.zoo.pgdiff.arcface import identity_gradient

            gradient = gradient + self.ref_weight * identity_gradient(self.arcface, x0, wanted)
        mean = mean - log_variance.exp() * gradient * self.guidance_scale
        state = self.diffusion.ddpm(mean, log_variance, index, draw)
        return Step(index, time, x, output, x0, state, gradient)

    def restored(self, batch: RestorationBatch, draws: Draws) -> torch.Tensor:
        """Return float32 [B, 3, S, S] in 0..1, what the published script writes.

        Raises:
            FfhqrefError: a case of the reference task has none.
        """
        import torch

        references = None
        if self.with_reference:
            missing = [number for number, given in enumerate(batch.references) if not len(given)]
            if missing:
                raise FfhqrefError(f"pgdiff: task ref_restoration needs a reference; case {missing[0]} has none")
            references = torch.cat([self.prepared(given[:1]) for given in batch.references])
        state = None
        for step in self.sample(self.prepared(batch.lq), references, draws):
            state = step.state
        assert state is not None
        return unsigned(state)
