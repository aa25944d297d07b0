"""DR2: a diffusion chain that keeps the image's low frequencies removes its degradation, and an enhancer follows.

Wang et al., "DR2: Diffusion-based Robust Degradation Remover for Blind Face Restoration" (arXiv 2303.06885).
Behaviour: the published dr2e.py and demo.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import ConfigError
from ffhqref.core.images import resize, to_tensor, to_uint8
from ffhqref.restorers.base import RestorationBatch, Restorer, RestorerInfo, complete
from ffhqref.restorers.cache_key import restorer_identity
from ffhqref.weights.tensors import load_tensors
from ffhqref.zoo.dr2.config import DR2Config
from ffhqref.zoo.dr2.lowpass import low_pass
from ffhqref.zoo.shared.guided_diffusion.diffusion import Diffusion, Step
from ffhqref.zoo.shared.guided_diffusion.restorer import DiffusionRestorer, input_size, load_unet, loaded
from ffhqref.zoo.shared.network import unsigned

if TYPE_CHECKING:
    import torch

    from ffhqref.zoo.dr2.network import SPARNetHD
    from ffhqref.zoo.shared.guided_diffusion.draws import Draws
    from ffhqref.zoo.shared.guided_diffusion.unet import GuidedUNet

INFO = RestorerInfo(
    name="dr2",
    summary="Degradation removed by a diffusion chain that keeps low frequencies, then an enhancer (DR2+E)",
    uses_seed=True,
    licence="MIT (weights); the implementation is Apache-2.0",
    trained_on=("FFHQ",),
    paper="Wang et al., DR2, CVPR 2023, arXiv 2303.06885",
    weights=("dr2", "dr2-sparnethd"),
    verified_against="outputs of the published code (April 2023) on random weights and stored draws: DR2 within 1e-4, "
    "with SPARNetHD within 1e-3",
)

OWN_ENHANCER = "sparnethd"


class DR2(DiffusionRestorer):
    """DR2 as a restorer, with its own enhancer or any of the zoo. Weights are loaded on the first call.

    The published code seeds nothing; here each case has its own noise, from its seed.

    Args:
        path: ``DR2_FFHQ.pkl``; None: from the weight registry. Read as tensors alone, whatever its ending.
        sparnet_path: ``SPARNetHD_FFHQ_DR2aug.pth``; None: from the weight registry. Not needed for other enhancers.
        config: architecture, as a mapping or the path of a YAML or JSON file (`DR2Config.load`); None: released.
        N: low frequencies are what is left after shrinking by N; 1: none are kept apart, the noised input replaces the
            state. Must divide the side, 256.
        tau: step at which the chain stops. The demo has (N, tau) = (4, 22), (8, 35) and (16, 35) from mild to severe
            degradation; the default is the one in the middle.
        enhancer: ``sparnethd`` (published), or a name of `ffhqref.restorers.RESTORERS`, which gets the image at
            `sr_size` in place of the LQ one, and the case's references and seed.
        enhancer_options: of that restorer's constructor.
        device: ``auto`` takes CUDA, then MPS, then the CPU.
        batch_size: cases at once.

    Raises:
        ConfigError: an unknown architecture, setting or enhancer.
        WeightsError: a file is missing or not the published one.
    """

    info = INFO

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        sparnet_path: str | Path | None = None,
        config: DR2Config | Mapping[str, Any] | str | Path | None = None,
        N: int = 8,
        tau: int = 35,
        enhancer: str = OWN_ENHANCER,
        enhancer_options: Mapping[str, Any] | None = None,
        device: str = "auto",
        batch_size: int = 1,
    ) -> None:
        self.config = DR2Config.load(config)
        self.diffusion = Diffusion.respaced(self.config.respacing, self.config.steps)
        side = self.config.dr2_size
        if isinstance(N, bool) or not isinstance(N, int) or N < 1 or side % N:
            raise ConfigError(f"dr2: N={N}, expected a whole number that divides {side}")
        self.omega = first_step(N, tau)
        if tau < 0 or self.omega >= len(self.diffusion):
            highest = len(self.diffusion) - 1 - first_step(N, 0)
            raise ConfigError(f"dr2: tau={tau}, expected 0..{highest} for N={N}")
        self.N = N
        self.tau = tau
        self.batch_size = batch_size
        own = enhancer == OWN_ENHANCER
        super().__init__({"dr2": path, **({"dr2-sparnethd": sparnet_path} if own else {})}, device)
        self.diffusion_side = side
        self.info = replace(INFO, input_size=input_size(self.config.sr_size), weights=tuple(self.files))
        self.enhancer: Restorer | None = None
        self.cache_key_options = {"config": asdict(self.config), "N": N, "tau": tau}
        if not own:
            self._use(enhancer, dict(enhancer_options or {}))
        elif enhancer_options:
            raise ConfigError(f"dr2: enhancer_options are for enhancers of the zoo; '{OWN_ENHANCER}' takes none")

    def _use(self, name: str, options: dict[str, Any]) -> None:
        from ffhqref.restorers import make_restorer

        if name == INFO.name:
            raise ConfigError(f"dr2: enhancer '{name}' would be itself; choose '{OWN_ENHANCER}' or another restorer")
        self.enhancer = make_restorer(name, **{"device": self.device, **options})
        identity = restorer_identity(name, options, self.enhancer)
        self.cache_key_options = {**(self.cache_key_options or {}), "enhancer": identity}
        theirs = self.enhancer.info
        if theirs.input_size not in (None, self.config.sr_size):
            raise ConfigError(
                f"dr2: enhancer '{name}' takes images of side {theirs.input_size}, not sr_size {self.config.sr_size}"
            )
        self.quantization = self.enhancer.quantization
        self.version = f"{self.version}+{name} {self.enhancer.version}"
        of_enhancer = {f"enhancer {file}": digest for file, digest in self.enhancer.weights_sha256.items()}
        self.weights_sha256 = {**self.weights_sha256, **of_enhancer}
        self.info = replace(
            self.info,
            min_references=theirs.min_references,
            max_references=theirs.max_references,
            deterministic=theirs.deterministic,
            licence=f"{INFO.licence}; {name}: {theirs.licence}",
            commercial_use=INFO.commercial_use and theirs.commercial_use,
            trained_on=tuple(dict.fromkeys((*INFO.trained_on, *theirs.trained_on))),
            weights=(*self.info.weights, *theirs.weights),
            verified_against=f"{INFO.verified_against}; {name}: {theirs.verified_against}",
        )

    @cached_property
    def unet(self) -> GuidedUNet:
        """The denoiser."""
        return load_unet(self.files["dr2"], self.config.unet, self.device)

    @cached_property
    def sparnet(self) -> SPARNetHD:
        """The published enhancer."""
        from ffhqref.zoo.dr2.network import SPARNetHD, folded

        path = self.files["dr2-sparnethd"]
        tensors = folded(load_tensors(path), path)
        network = loaded(lambda: SPARNetHD(self.config.sparnet), tensors, path, self.device)
        assert isinstance(network, SPARNetHD)
        return network

    def prepared(self, pictures: torch.Tensor) -> torch.Tensor:
        """Return images [B, 3, H, W] of 0..1 as the denoiser takes them, [B, 3, 256, 256] in −1..1.

        They go through 8 bits and PIL's bicubic filter, as files do in the published script.
        """
        small = [resize(picture, self.config.dr2_size) for picture in to_uint8(pictures)]
        return ((to_tensor(small) - 0.5) / 0.5).to(self.device)

    def sample(self, picture: torch.Tensor, draws: Draws) -> Iterator[Step]:
        """Yield the steps of the chain; the last one's `x0` is the result.

        Args:
            picture: [B, 3, S, S] in −1..1, whose low frequencies are kept.
            draws: the first is for the start; then each step takes one and, but for the last, one for the exchange.
        """
        x = self.diffusion.noised(picture, self.omega, draws())
        for index in range(self.omega, self.tau - 1, -1):
            time = int(self.diffusion.times[index])
            output = self.unet(x, time)
            x0 = self.diffusion.foreseen(x, index, output)
            mean, log_variance = self.diffusion.posterior(x, x0, index, output)
            state = self.diffusion.ddpm(mean, log_variance, index, draws())
            yield Step(index, time, x, output, x0, state)
            if index > self.tau:
                kept = self.diffusion.noised(picture, index - 1, draws())
                x = kept if self.N == 1 else state - low_pass(state, self.N) + low_pass(kept, self.N)

    def removed(self, pictures: torch.Tensor, draws: Draws) -> torch.Tensor:
        """Return images [B, 3, H, W] of 0..1 without their degradation: [B, 3, 256, 256] in −1..1."""
        x0 = picture = self.prepared(pictures)
        for step in self.sample(picture, draws):
            x0 = step.x0
        return x0

    def enlarged(self, removed: torch.Tensor) -> torch.Tensor:
        """Return what `removed` gave at the enhancer's side, −1..1 and a little beyond.

        Bicubic without antialiasing, as the resize of torchvision was when the code was published; from 0.17 on the
        same line of it antialiases.
        """
        from torch.nn import functional as F

        size = (self.config.sr_size, self.config.sr_size)
        return F.interpolate(removed, size=size, mode="bicubic", align_corners=False)

    def restored(self, batch: RestorationBatch, draws: Draws) -> torch.Tensor:
        """Return float32 [B, 3, sr_size, sr_size] in 0..1, what the published script writes."""
        picture = self.enlarged(self.removed(batch.lq, draws))
        if self.enhancer is None:
            return unsigned(self.sparnet(picture))
        return complete(self.enhancer.restore(replace(batch, lq=unsigned(picture).cpu())))


def first_step(N: int, tau: int) -> int:
    """Return ω, the index at which the chain starts, by the published table."""
    for most, ahead in ((1, 5), (2, 10), (4, 20), (8, 25)):
        if most >= N:
            return tau + ahead
    return tau + 30
