"""Counts parameters and multiply-adds of every method at full size, on torch's meta device: no weights, no memory.

A method's entry says which networks one case goes through and how often, with the released widths and the restorer's
default options. Run ``python -m ffhqref.zoo.counting`` to make ``costs.csv`` anew; `ffhqref.zoo.costs` reads it
without torch.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ffhqref.core.compat import ensure_torchvision
from ffhqref.core.errors import ConfigError
from ffhqref.core.images import SIZE
from ffhqref.restorers import RESTORERS
from ffhqref.zoo.costs import Cost, case_references, to_csv

FACES = "face detector and ArcFace"
LANDMARKS = "face detector and landmarks"

UNET_2_1: Mapping[str, Any] = {
    "block_out_channels": (320, 640, 1280, 1280),
    "down_block_types": (*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
    "up_block_types": ("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
"""Stable Diffusion 2.1 and SD-Turbo, by the names of diffusers."""
UNET_XL: Mapping[str, Any] = {
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
VAE: Mapping[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
}
"""Of all Stable Diffusions."""


@dataclass(frozen=True)
class Part:
    """Work of one case."""

    run: Callable[[], object]
    times: int = 1
    """How often."""


@dataclass(frozen=True)
class Case:
    """What a method does for one case."""

    networks: tuple[nn.Module, ...]
    parts: tuple[Part, ...]
    left_out: str = ""
    """Networks of a case that are not counted: they are not torch's, or judge and find faces."""


def count(method: str) -> Cost:
    """Return the static costs of a method for one 512x512 image with `case_references` references.

    Raises:
        ConfigError: there is no way to count it.
    """
    if method not in CASES:
        raise ConfigError(f"cost of '{method}': {REASONS.get(method, 'not known how to count')}")
    ensure_torchvision()
    references = case_references(RESTORERS.get(method).info)  # type: ignore[attr-defined]
    with torch.no_grad(), torch.device("meta"):
        case = CASES[method](references)
        for network in case.networks:
            network.requires_grad_(False)  # the counter's hooks trip over parameters that are returned as they are
        work = sum(part.times * multiply_adds(part.run) for part in case.parts)
    return Cost(
        method=method,
        parameters=parameters(case.networks),
        multiply_adds=work,
        evaluations=max(part.times for part in case.parts),
        note=f"without {case.left_out}" if case.left_out else "",
    )


def multiply_adds(run: Callable[[], object]) -> int:
    """Return the multiply-adds of convolutions and matrix products in a call; others are not counted."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its one large operation is unknown to the counter
    counter = FlopCounterMode(display=False, custom_mapping=_deformable())
    try:
        with counter:
            run()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops()) // 2


def parameters(networks: Iterable[nn.Module]) -> int:
    """Return the number of parameters of networks, a shared one once; stored tables that are no parameters excluded."""
    return sum({id(value): value.numel() for network in networks for value in network.parameters()}.values())


def _deformable() -> dict[Any, Callable[..., int]]:
    try:
        operator = torch.ops.torchvision.deform_conv2d
    except (AttributeError, RuntimeError):
        return {}

    def flops(_: object, weight: torch.Size, *__: object, out_shape: torch.Size, **___: object) -> int:
        return 2 * out_shape.numel() * weight[1:].numel()

    return {operator: flops}


def _default(method: str, option: str) -> Any:
    return inspect.signature(RESTORERS.get(method)).parameters[option].default


def _image(side: int = SIZE, batch: int = 1) -> torch.Tensor:
    return torch.empty(batch, 3, side, side)


def _bare(kind: type[Any], **parts: Any) -> Any:
    """Return an object of a class that loads files in its constructor, with networks in place of those."""
    made: Any = object.__new__(kind)
    vars(made).update(device="meta", dtype=torch.float32, **parts)
    return made


def _diffusers() -> Any:
    from ffhqref.zoo.shared.model_folder import import_diffusers

    return import_diffusers()


def _single(network: nn.Module, *more: object, side: int = SIZE, left_out: str = "", **options: object) -> Case:
    network.eval()
    return Case((network,), (Part(lambda: network(_image(side), *more, **options)),), left_out)


def _asffnet(_: int) -> Case:
    from ffhqref.zoo.asffnet.config import ASFFNetConfig
    from ffhqref.zoo.asffnet.network import ASFFNet
    from ffhqref.zoo.shared.spectral import fold

    network = ASFFNet(ASFFNetConfig())
    fold(network)
    mask, grid = torch.empty(1, 1, SIZE, SIZE), torch.empty(1, 128, 128, 2)
    return _single(network, mask, _image(), grid, left_out=LANDMARKS)


def _codeformer(_: int) -> Case:
    from ffhqref.zoo.codeformer.config import CodeFormerConfig
    from ffhqref.zoo.codeformer.network import CodeFormerNetwork

    return _single(CodeFormerNetwork(CodeFormerConfig()), _default("codeformer", "fidelity_weight"))


def _daefr(_: int) -> Case:
    from ffhqref.zoo.daefr.config import DAEFRConfig
    from ffhqref.zoo.daefr.network import DAEFR

    return _single(DAEFR(DAEFRConfig()))


def _difface(_: int) -> Case:
    from ffhqref.zoo.difface.config import DifFaceConfig
    from ffhqref.zoo.shared.guided_diffusion.unet import GuidedUNet

    config = DifFaceConfig()
    unet, swinir = GuidedUNet(config.unet).eval(), _swinir(config.swinir)
    side = config.unet.image_size
    steps = Part(lambda: unet(_image(side), 1), _default("difface", "start"))
    return Case((unet, swinir), (Part(lambda: swinir(_image(side))), steps))


def _swinir(config: Any) -> nn.Module:
    from ffhqref.zoo.shared.swinir import build_swinir

    with torch.device("cpu"):  # its constructor reads values
        made = build_swinir(config)
    return made.to("meta").eval()


def _dmdnet(references: int) -> Case:
    from ffhqref.zoo.dmdnet.boxes import PARTS
    from ffhqref.zoo.dmdnet.config import DMDNetConfig
    from ffhqref.zoo.dmdnet.network import DMDNet
    from ffhqref.zoo.shared.spectral import fold

    network = DMDNet(DMDNetConfig())
    fold(network)
    boxes = dict.fromkeys(PARTS, (192, 192, 272, 272))  # parts are brought to one size: any box costs the same
    return _single(network, boxes, [(_image(), boxes)] * references, left_out=LANDMARKS)


def _dr2(_: int) -> Case:
    from ffhqref.zoo.dr2.config import DR2Config
    from ffhqref.zoo.dr2.network import SPARNetHD
    from ffhqref.zoo.dr2.restorer import first_step
    from ffhqref.zoo.shared.guided_diffusion.unet import GuidedUNet

    config = DR2Config()
    unet, enhancer = GuidedUNet(config.unet).eval(), SPARNetHD(config.sparnet).eval()
    last = _default("dr2", "tau")
    steps = first_step(_default("dr2", "N"), last) - last + 1
    chain = Part(lambda: unet(_image(config.dr2_size), 1), steps)
    return Case((unet, enhancer), (chain, Part(lambda: enhancer(_image(config.sr_size)))))


def _faceme(references: int) -> Case:
    from ffhqref.zoo.faceme.clip import IdentityEncoder
    from ffhqref.zoo.faceme.mix import Mix
    from ffhqref.zoo.faceme.model import Conditions, FaceMe

    diffusers = _diffusers()
    up = ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D")
    unet = diffusers.UNet2DConditionModel(up_block_types=up, **UNET_XL).eval()
    controlnet, vae = diffusers.ControlNetModel(**UNET_XL).eval(), diffusers.AutoencoderKL(**VAE).eval()
    encoder, mix = IdentityEncoder().eval(), Mix().eval()
    model = _bare(FaceMe, unet=unet, controlnet=controlnet, vae=vae)
    added = {"text_embeds": torch.empty(2, 1280), "time_ids": torch.empty(2, 6)}
    given = Conditions(torch.empty(2, 77, 2048), added, _image(batch=2))
    latent = torch.empty(1, 4, SIZE // 8, SIZE // 8)

    def identity() -> object:
        faces = _image(encoder.config.image_size, references)
        return mix(encoder(faces), torch.empty(references, mix.config.id_dim))

    parts = (
        Part(identity),
        Part(lambda: vae.encode(_image())),
        Part(lambda: model.predict(latent, 1, given), _default("faceme", "steps")),
        Part(lambda: model.decode(latent)),
    )
    return Case((unet, controlnet, vae, encoder, mix), parts, f"{FACES}; prompts are encoded once a run")


def _gfpgan(_: int) -> Case:
    from ffhqref.zoo.gfpgan.config import GFPGANConfig
    from ffhqref.zoo.gfpgan.network import build_network

    return _single(build_network(GFPGANConfig()), randomize_noise=False, return_rgb=False)


def _gpen(_: int) -> Case:
    from ffhqref.zoo.gpen.config import GPENConfig
    from ffhqref.zoo.gpen.network import FullGenerator

    return _single(FullGenerator(GPENConfig()))


class _Words:
    """Stands in for a tokenizer: what the words are costs nothing."""

    model_max_length = 77

    def __call__(self, *_: object, **__: object) -> dict[str, list[int]]:
        return {"input_ids": [0] * self.model_max_length}


def _instantrestore(references: int) -> Case:
    from ffhqref.zoo.instantrestore.config import FREEU, PROMPT, REFERENCE_TIMESTEP, TIMESTEP, Behaviour, ModelSettings
    from ffhqref.zoo.instantrestore.loading import Networks
    from ffhqref.zoo.instantrestore.lora import UNET_LAYERS, VAE_LAYERS, add_lora
    from ffhqref.zoo.instantrestore.model import Draws, InstantRestore

    diffusers = _diffusers()
    settings = ModelSettings(lora_rank_unet=32, lora_rank_vae=32, use_adain=True, train_input=False)
    unets = [diffusers.UNet2DConditionModel(**UNET_2_1).eval() for _ in range(2)]
    vaes = [diffusers.AutoencoderKL(**VAE).eval() for _ in range(2)]
    add_lora(unets[0], UNET_LAYERS, settings.lora_rank_unet, "default")
    add_lora(vaes[0], VAE_LAYERS, settings.lora_rank_vae, "vae_skip")
    schedule = SimpleNamespace(
        alphas_cumprod=torch.empty(1000), config=SimpleNamespace(prediction_type="epsilon", clip_sample=False)
    )
    states = SimpleNamespace(last_hidden_state=torch.empty(1, 77, 1024))
    networks = Networks(settings, unets[0], vaes[0], unets[1], vaes[1], lambda _: states, _Words(), schedule)
    behaviour = Behaviour(PROMPT, TIMESTEP, REFERENCE_TIMESTEP, FREEU)
    model = InstantRestore(networks, behaviour, device="meta")
    one, several = (torch.empty(number, 4, SIZE // 8, SIZE // 8) for number in (1, references))
    work = Part(lambda: model.restore(_image(), _image(batch=references), Draws(one, several, several, one)))
    return Case((*unets, *vaes), (work,), "the prompt, which is encoded once a run")


def _osdface(_: int) -> Case:
    from ffhqref.zoo.osdface.config import PromptConfig
    from ffhqref.zoo.osdface.model import EmbeddingChange, PromptEncoder

    diffusers, config = _diffusers(), PromptConfig()
    unet, vae = diffusers.UNet2DConditionModel(**UNET_2_1).eval(), diffusers.AutoencoderKL(**VAE).eval()
    encoder, change = PromptEncoder(config).eval(), EmbeddingChange(config.embed_dim, 1024).eval()
    latent = torch.empty(1, 4, SIZE // 8, SIZE // 8)

    def restore() -> None:
        encoder(_image(config.resolution))
        states = change(torch.empty(1, config.n_min, config.embed_dim))
        vae.encode(_image())
        unet(latent, 1, encoder_hidden_states=states)
        vae.decode(latent)

    return Case((unet, vae, encoder, change), (Part(restore),), "the search of the nearest codes")


def _pgdiff(_: int) -> Case:
    from ffhqref.zoo.pgdiff.config import PGDiffConfig
    from ffhqref.zoo.pgdiff.network import SmoothSemantics
    from ffhqref.zoo.shared.guided_diffusion.diffusion import Diffusion
    from ffhqref.zoo.shared.guided_diffusion.unet import GuidedUNet

    config = PGDiffConfig()
    unet, guess = GuidedUNet(config.unet).eval(), SmoothSemantics(config.rrdb).eval()
    with torch.device("cpu"):
        steps = len(Diffusion.respaced(_default("pgdiff", "respacing"), config.steps))
    image = _image(config.size)
    return Case((unet, guess), (Part(lambda: (guess(image, image, 1), unet(image, 1)), steps),))


def _pmrf(_: int) -> Case:
    from ffhqref.zoo.pmrf.config import PMRFConfig
    from ffhqref.zoo.pmrf.network import HDiT

    config = PMRFConfig()
    flow, mean = HDiT(config.hdit).eval(), _swinir(config.swinir)
    steps = Part(lambda: flow(_image(), 0.5), _default("pmrf", "steps"))
    return Case((flow, mean), (Part(lambda: mean(_image())), steps))


def _refldm(references: int) -> Case:
    from ffhqref.zoo.refldm.config import RefLDMConfig

    return _latent_diffusion(RefLDMConfig(), references, _refldm_steps("paper"))


def _refldm_steps(preset: str) -> int:
    from ffhqref.zoo.refldm.restorer import PRESETS
    from ffhqref.zoo.refldm.schedule import ddim_timesteps

    chosen = PRESETS[preset]
    with torch.device("cpu"):
        return len(ddim_timesteps(chosen.steps, chosen.spacing, 1000))


def _refldm_tiny(references: int) -> Case:
    from ffhqref.zoo.refldm.config import RefLDMConfig
    from ffhqref.zoo.refldm.schedule import DDIMTable, alphas_cumprod

    config = RefLDMConfig.load(Path(__file__).parent / "refldm" / "tiny" / "config.yaml")
    with torch.device("cpu"):
        alphas = alphas_cumprod(config.timesteps, config.linear_start, config.linear_end)
        table = DDIMTable.make(alphas, _default("refldm-tiny", "steps"), _default("refldm-tiny", "spacing"))
        steps = len(table.up_to(_default("refldm-tiny", "start_time")))
    return _latent_diffusion(config, references, steps)


def _latent_diffusion(config: Any, references: int, steps: int) -> Case:
    from ffhqref.zoo.refldm.first_stage import FirstStage
    from ffhqref.zoo.refldm.keys_values import RowGroup, WithReferences
    from ffhqref.zoo.refldm.model import RefLDM
    from ffhqref.zoo.refldm.unet import UNet

    with torch.device("cpu"):
        model = RefLDM(config, UNet(config.unet).to("meta"), FirstStage(config.first_stage).to("meta"), device="meta")
    side = config.image_size
    zero = torch.empty(1, config.unet.in_channels, side, side)
    null = model.unet.keys_values(zero)  # of the weights alone, once a run
    attended = model.unet.keys_values(zero.expand(references, -1, -1, -1)).merged(references)
    rows = WithReferences([RowGroup(0, 1, null, torch.empty(1)), RowGroup(1, 2, attended)])

    def conditions() -> None:
        model.encode(_image(config.picture_size))
        model.encode_references(_image(config.picture_size, references))
        model.unet.keys_values(zero.expand(references, -1, -1, -1))

    parts = (
        Part(conditions),
        Part(lambda: model.unet(zero, torch.empty(1), rows), steps),
        Part(lambda: model.decode(torch.empty(1, config.channels, side, side))),
    )
    return Case((model.unet, model.first_stage), parts)


def _restoreformer(_: int) -> Case:
    from ffhqref.zoo.restoreformer.config import RestoreFormerConfig

    return _quantised(RestoreFormerConfig())


def _restoreformer_pp(_: int) -> Case:
    from ffhqref.zoo.restoreformer.config import RestoreFormerPPConfig

    return _quantised(RestoreFormerPPConfig())


def _quantised(config: Any) -> Case:
    from ffhqref.zoo.restoreformer.network import build_network, run_network

    network = build_network(config).eval()
    return Case((network,), (Part(lambda: run_network(network, _image())),))


def _restorerid(_: int) -> Case:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from ffhqref.zoo.restorerid.config import RestorerIDConfig
    from ffhqref.zoo.restorerid.model import RestorerID
    from ffhqref.zoo.restorerid.structure import StructureEncoder
    from ffhqref.zoo.restorerid.unet import Denoiser, identity_projection, vae

    config = RestorerIDConfig()
    vision = CLIPVisionConfig(**vars(config.vision), **config.vision.FIXED)
    networks: dict[str, Any] = {
        "vae": vae(config.vae),
        "projection": identity_projection(config.adapter, config.vision.hidden_size),
        "image_encoder": CLIPVisionModelWithProjection(vision),
        "structure": StructureEncoder(config.struct),
        "unet": Denoiser(config),
    }
    for network in networks.values():
        network.eval()
    text = torch.empty(1, 77, config.unet.context_dim)
    nobody = torch.empty(1, config.adapter.num_tokens, config.adapter.context)
    model = _bare(RestorerID, config=config, positive=text, negative=text, nobody=nobody, **networks)
    latent = torch.empty(1, 4, SIZE // 8, SIZE // 8)

    def step() -> object:
        return model.predict(latent, 1, nobody, model.features(latent, 1), 1.0, guided=True)

    def identity() -> object:
        return model.tokens(torch.empty(1, config.adapter.id_dim), model.hidden(_image(config.vision.image_size)))

    parts = (
        Part(identity),
        Part(lambda: model.latent(_image(), latent)),
        Part(step, _default("restorerid", "steps")),
        Part(lambda: model.decode(latent)),
    )
    return Case(tuple(networks.values()), parts, f"{FACES}, MUSIQ; prompts are encoded once a run")


def _vqfr(_: int) -> Case:
    from ffhqref.zoo.vqfr.config import VQFRConfig
    from ffhqref.zoo.vqfr.network import VQFRv2

    return _single(VQFRv2(VQFRConfig()), _default("vqfr", "fidelity_ratio"))


def _vqfr_v1(_: int) -> Case:
    from ffhqref.zoo.vqfr.config import VQFRv1Config
    from ffhqref.zoo.vqfr.network_v1 import VQFRv1

    return _single(VQFRv1(VQFRv1Config()), left_out="the search of the nearest codes")


CASES: Mapping[str, Callable[[int], Case]] = {
    "asffnet": _asffnet,
    "codeformer": _codeformer,
    "daefr": _daefr,
    "difface": _difface,
    "dmdnet": _dmdnet,
    "dr2": _dr2,
    "faceme": _faceme,
    "gfpgan": _gfpgan,
    "gpen": _gpen,
    "instantrestore": _instantrestore,
    "osdface": _osdface,
    "pgdiff": _pgdiff,
    "pmrf": _pmrf,
    "refldm": _refldm,
    "refldm-tiny": _refldm_tiny,
    "restoreformer": _restoreformer,
    "restoreformer_pp": _restoreformer_pp,
    "restorerid": _restorerid,
    "vqfr": _vqfr,
    "vqfr_v1": _vqfr_v1,
}
"""What one case goes through, with so many references, built inside ``torch.device("meta")``."""

REASONS: Mapping[str, str] = {
    **dict.fromkeys(("bicubic", "lq", "nlm", "reference", "tv"), "no network"),
    **dict.fromkeys(("best_of", "chain", "colour_transfer", "tiled"), "that of its parts"),
    "command": "runs in a program of its own",
    "outputs": "images that exist already",
    "realesrgan": "a network in ncnn's format, not torch's",
}
"""Why a built-in restorer has no count."""


def every_cost() -> list[Cost]:
    """Return the costs of all built-in restorers, with the reason where there is none."""
    return [count(name) if name in CASES else Cost(name, note=REASONS[name]) for name in sorted({**CASES, **REASONS})]


if __name__ == "__main__":
    sys.stdout.write(to_csv(every_cost()))
