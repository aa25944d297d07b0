"""FaceMe: seconds an image of the restorer against diffusers' SDXL ControlNet pipeline called bare, in one program.

    python benchmarks/faceme.py                                        a narrow network, 512 px, on the CPU
    python benchmarks/faceme.py --device cuda --width 320 --steps 50   full widths, without the deep transformers

The pipeline is what the published script calls. Both sides have the same random weights and run alternately; what the
restorer does besides (detecting faces is a stand-in here, CLIP, Mix, VAE, colours, the way through 8 bit) counts for
it alone. That both latents are near is printed beside the times.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from ffhqref.core.compat import ensure_torchvision
from ffhqref.restorers import RestorationBatch
from ffhqref.zoo.faceme.restorer import FaceMeRestorer

TINY = Path(__file__).parent.parent / "tests" / "zoo" / "tiny" / "faceme.py"


def narrow_model(folder: Path, width: int) -> dict[str, Any]:
    """Write random weights with this width of the first level, and return the restorer's options."""
    spec = importlib.util.spec_from_file_location("tiny_faceme", TINY)
    assert spec is not None
    assert spec.loader is not None
    tiny = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tiny)
    tiny.SDXL.update(block_out_channels=[width, 2 * width], attention_head_dim=[width // 32, width // 16])
    tiny.VAE.update(block_out_channels=[width // 2] * 4)
    return tiny.options(folder)  # type: ignore[no-any-return]


def bare_pipeline(model: Any) -> Any:
    """Return diffusers' pipeline around the restorer's own networks."""
    ensure_torchvision()
    from diffusers import StableDiffusionXLControlNetPipeline

    pipeline = StableDiffusionXLControlNetPipeline(
        vae=model.vae, unet=model.unet, controlnet=model.controlnet, scheduler=model.scheduler,
        text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None,
        add_watermarker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def timed(device: str, work: Any) -> tuple[float, Any]:
    """Return seconds and result of a call."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def main() -> None:
    """Run both sides alternately and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--width", type=int, default=64, help="channels of the first level, a multiple of 32")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where the figures go")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        settings = {**narrow_model(Path(folder), options.width), "steps": options.steps, "info": {}}
        restorer = FaceMeRestorer(**settings, device=options.device)
        model, side = restorer.model, options.size
        torch.manual_seed(0)
        lq, references = torch.rand(1, 3, side, side), torch.rand(4, 3, side, side)
        batch = RestorationBatch(lq, [references], [1])
        control = lq * 2 - 1
        identity = torch.randn(4, model.mix.config.embed_dim, device=options.device)
        given, draws = model.conditions(control, identity), restorer.draws(1, side, side)
        pipeline = bare_pipeline(model)

        def bare(output: str = "pil") -> Any:
            negative, positive = given.states.chunk(2)
            negative_pooled, positive_pooled = given.added["text_embeds"].chunk(2)
            return pipeline(
                image=control.to(options.device, model.dtype), latents=model.start(control, draws).to(model.dtype),
                prompt_embeds=positive, negative_prompt_embeds=negative, pooled_prompt_embeds=positive_pooled,
                negative_pooled_prompt_embeds=negative_pooled, num_inference_steps=options.steps,
                guidance_scale=5.0, output_type=output, generator=torch.Generator().manual_seed(9),
            ).images  # fmt: skip

        theirs = bare("latent").float()
        generator = torch.Generator().manual_seed(9)  # the pipeline draws only the steps' noise from it
        steps = torch.stack([torch.randn(draws.start.shape, generator=generator) for _ in range(options.steps)])
        ours = model.sample(control, identity, type(draws)(draws.posterior, draws.start, steps))
        restorer.restore(batch)
        pairs = [
            (timed(options.device, lambda: restorer.restore(batch))[0], timed(options.device, bare)[0])
            for _ in range(options.repeats)
        ]
    figures = {
        "device": options.device,
        "width": options.width,
        "steps": options.steps,
        "size": side,
        "threads": torch.get_num_threads(),
        "seconds_restorer": statistics.median(pair[0] for pair in pairs),
        "seconds_bare": statistics.median(pair[1] for pair in pairs),
        "ratio": statistics.median(one / other for one, other in pairs),
        "latents_relative_difference": float((ours - theirs).abs().max() / theirs.abs().max()),
    }
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
