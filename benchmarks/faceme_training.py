"""Steps a second and peak memory of FaceMe's training against a bare transcription of the published loop.

Both train the same small networks on the same images, on this machine, in turns, each in a process of its own:

    python benchmarks/faceme_training.py [--steps 12] [--rounds 3] [--side 128] [--json FILE]

``loop``: the published loop written out with the libraries: features and text states ready (as in the published run),
images read and degraded in the main process (its default), an encoding of the target by the VAE in each step.
``ours``: the same work by `ffhqref.training.loop`. ``ours cached``: latent distributions kept (``cached_latents``).
``loop uncached``: what the loop costs when features and text states are computed in each step, for somebody without
a preparation. Seconds are those of the clock and, for machines that are busy with other things, of the processor; the
ratio is of the latter. Memory is the highest resident size of each process.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

BATCH, WARM = 2, 2
WAYS = ("loop", "ours", "ours cached", "loop uncached")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="FaceMe's training against the published loop")
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        way, folder = options.one
        print(json.dumps(measure(way, Path(folder), options)))
        return
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        make_world(Path(folder), options.side)
        for _ in range(options.rounds):
            for way in WAYS:
                arguments = [f"--{name}={getattr(options, name)}" for name in ("steps", "side", "threads")]
                done = subprocess.run(
                    [sys.executable, __file__, *arguments, "--one", way, folder],
                    check=True,
                    capture_output=True,
                    text=True,
                )
                found[way].append(json.loads(done.stdout.splitlines()[-1]))
    table: dict[str, Any] = {}
    for way, rounds in found.items():
        table[way] = {
            "seconds_per_step": statistics.median(item["seconds"] for item in rounds),
            "processor_seconds_per_step": statistics.median(item["processor_seconds"] for item in rounds),
            "peak_megabytes": max(item["peak_megabytes"] for item in rounds),
        }
    for way, row in table.items():
        ratio = row["processor_seconds_per_step"] / table["loop"]["processor_seconds_per_step"]
        print(
            f"{way:14} {1 / row['seconds_per_step']:6.2f} steps/s, "
            f"{row['processor_seconds_per_step']:.3f} s of processor a step: {ratio:.2f} x the loop's; "
            f"{row['peak_megabytes']:.0f} MB"
        )
    spent = [table[way]["processor_seconds_per_step"] for way in ("loop uncached", "ours cached")]
    gain = spent[0] / spent[1]
    print(f"with everything kept, {gain:.2f} times as fast as computing features and text states in each step")
    if options.json:
        options.json.write_text(json.dumps({"side": options.side, "batch": BATCH, "ways": table}, indent=1))


def make_world(folder: Path, side: int) -> None:
    """Write base, CLIP tower, images and features."""
    from ffhqref.core.images import save_png
    from ffhqref.training.faceme.features import write_feature
    from ffhqref.training.faceme.lists import Sample, feature_of, write_samples
    from ffhqref.training.faceme.small import CROSS, write_small_base, write_small_photomaker
    from ffhqref.zoo.faceme.config import IdentityEncoderConfig

    write_small_base(folder / "base", side=side, widths=(32, 48, 48))
    write_small_photomaker(folder / "photomaker.bin", IdentityEncoderConfig(**tower()))
    rng, samples = np.random.default_rng(0), []
    for number in range(6):
        name = f"{number:05d}"
        small = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        save_png(folder / f"{name}.png", np.kron(small, np.ones((side // 8, side // 8, 1), np.uint8)))
        features = [feature_of(folder / "own", name), *(feature_of(folder / "ref", f"{name}/0_{k}") for k in range(5))]
        for feature in features:
            vector = rng.standard_normal(16)
            write_feature(feature.identity, vector / np.linalg.norm(vector))
            write_feature(feature.clip, rng.standard_normal(CROSS))
        samples.append(Sample(str(folder / f"{name}.png"), features[0], tuple(features[1:])))
    write_samples(folder / "train.json", samples)


def tower() -> dict[str, int]:
    """Widths of the CLIP tower: small, with the real image size."""
    return {
        "hidden_size": 192,
        "intermediate_size": 768,
        "num_hidden_layers": 6,
        "num_attention_heads": 3,
        "patch_size": 14,
        "image_size": 224,
        "projection_dim": 24,
        "projection_dim_2": 40,
    }


def measure(way: str, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Return seconds a step (medians) and peak memory of one way, in this process."""
    import torch

    torch.set_num_threads(options.threads)
    moments = ours(way, folder, options) if way.startswith("ours") else published(way, folder, options)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    spent = np.diff(np.array(moments), axis=0)[WARM:]
    clock, processor = np.median(spent, axis=0)
    return {"seconds": float(clock), "processor_seconds": float(processor), "peak_megabytes": peak}


def now() -> tuple[float, float]:
    """Return seconds of the clock and of the processor."""
    return time.perf_counter(), time.process_time()


def ours(way: str, folder: Path, options: argparse.Namespace) -> list[tuple[float, float]]:
    """Train with the library; return the moments between steps."""
    from ffhqref.core.images import read_rgb
    from ffhqref.training.faceme.data import FaceMeBatches
    from ffhqref.training.faceme.features import FeatureFiles
    from ffhqref.training.faceme.lists import read_samples
    from ffhqref.training.faceme.settings import FaceMeSettings
    from ffhqref.training.faceme.small import CROSS
    from ffhqref.training.faceme.start import encode_prompt, load_networks
    from ffhqref.training.faceme.task import FaceMeTask
    from ffhqref.training.faces import unrounded_degradation
    from ffhqref.training.loop import train
    from ffhqref.training.runtime import TrainingRuntime
    from ffhqref.training.settings import RunSettings
    from ffhqref.zoo.faceme.config import MixConfig

    steps = WARM + options.steps
    run = RunSettings(steps=steps, batch_size=BATCH, warmup=0, save_every=10 * steps, sample_every=0)
    settings = FaceMeSettings(
        run, resolution=options.side, most_references=4, cached_latents=100 if way == "ours cached" else 0
    )
    base = folder / "base"
    task = FaceMeTask(
        settings, load_networks(base, encode_prompt(base), mix_config=MixConfig(CROSS, 16)), TrainingRuntime("cpu")
    )
    source = FaceMeBatches(
        read_samples(folder / "train.json"),
        read_rgb,
        unrounded_degradation("faceme", 512),
        FeatureFiles(),
        settings.batch_rules,
        settings.pool_rules,
    )
    moments = [now()]
    with tempfile.TemporaryDirectory() as made:
        # One step short of the end, where the state is saved.
        train(task, source, made, callback=lambda *_: moments.append(now()))
    return moments


def published(way: str, folder: Path, options: argparse.Namespace) -> list[tuple[float, float]]:
    """Train with the published loop, written out; return the moments between steps."""
    import torch
    from torch.nn import functional as F

    from ffhqref.core.images import read_rgb
    from ffhqref.degradation import draw, get_degradation, steps
    from ffhqref.training.faceme.lists import read_samples
    from ffhqref.training.faceme.small import CROSS
    from ffhqref.training.faceme.start import controlnet_of
    from ffhqref.zoo.faceme.clip import clip_pixels, load_identity_encoder
    from ffhqref.zoo.faceme.config import IdentityEncoderConfig
    from ffhqref.zoo.faceme.mix import Mix, MixConfig
    from ffhqref.zoo.faceme.prompt import PROMPT, TextEncoders
    from ffhqref.zoo.shared.model_folder import load_scheduler, load_unet, load_vae

    base, rng, rules = folder / "base", np.random.default_rng(0), get_degradation("faceme")
    unet, vae, scheduler = load_unet(base), load_vae(base), load_scheduler(base)
    unet.requires_grad_(False)
    vae.requires_grad_(False)
    controlnet, mix = controlnet_of(unet), Mix(MixConfig(CROSS, 16))
    controlnet.train().requires_grad_(True)
    encoders = TextEncoders(base)
    text, position = encoders.encode(PROMPT), encoders.position(PROMPT)
    clip_tower = load_identity_encoder(folder / "photomaker.bin", IdentityEncoderConfig(**tower()))
    optimizer = torch.optim.AdamW([*controlnet.parameters(), *mix.parameters()], lr=5e-5, weight_decay=1e-2)
    samples = read_samples(folder / "train.json")
    moments = [now()]
    for step in range(WARM + options.steps):
        count = 1 + int(rng.integers(4))
        targets, controls, ids, clips = [], [], [], []
        for slot in range(BATCH):
            sample = samples[int(rng.integers(len(samples)))]
            picture = read_rgb(sample.target)
            drawn = draw(rules, step * BATCH + slot, "x")
            noise = steps.recorded_noise(drawn, steps.reduced_size(picture, drawn), rules)
            control = np.clip(steps.degrade(picture, drawn, noise, rules), 0, 1)
            targets.append(torch.from_numpy((picture / 255.0).astype(np.float32) * 2 - 1).permute(2, 0, 1))
            controls.append(torch.from_numpy(control * 2 - 1).permute(2, 0, 1))
            pool = [*sample.references, sample.own]
            chosen = [pool[index] for index in rng.permutation(len(pool))[:count]]
            ids.append(torch.from_numpy(np.concatenate([np.load(feature.identity) for feature in chosen])))
            if way == "loop uncached":
                with torch.no_grad():
                    clips.append(clip_tower(torch.stack([clip_pixels(picture) for _ in chosen])))
            else:
                clips.append(torch.from_numpy(np.concatenate([np.load(feature.clip) for feature in chosen])))
        if way == "loop uncached":
            text = encoders.encode(PROMPT)
        target, control = torch.stack(targets), torch.stack(controls).float()
        with torch.no_grad():
            latents = vae.encode(target).latent_dist.sample() * vae.config.scaling_factor
        noise_latent = torch.randn_like(latents)
        times = torch.randint(0, 1000, (BATCH,))
        noisy = scheduler.add_noise(latents, noise_latent, times)
        tokens = mix(torch.stack(clips), torch.stack(ids))
        plain = text.states.expand(BATCH, -1, -1)
        states = torch.cat([plain[:, :position], tokens, plain[:, position + 1 :]], dim=1)[:, :77]
        size = torch.tensor([[options.side, options.side, 0, 0, options.side, options.side]]).expand(BATCH, -1)
        added = {"text_embeds": text.pooled.expand(BATCH, -1), "time_ids": size}
        down, middle = controlnet(
            noisy,
            times,
            encoder_hidden_states=states,
            added_cond_kwargs=added,
            controlnet_cond=control,
            return_dict=False,
        )
        prediction = unet(
            noisy,
            times,
            encoder_hidden_states=states,
            added_cond_kwargs=added,
            down_block_additional_residuals=list(down),
            mid_block_additional_residual=middle,
            return_dict=False,
        )[0]
        loss = F.mse_loss(prediction.float(), noise_latent.float())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()
        moments.append(now())
    return moments


if __name__ == "__main__":
    main()
