"""ReF-LDM: our images per second against a run that works as the published script does, in one program.

    python benchmarks/refldm.py                          full-size architecture, 512, 5 references, on the CPU
    python benchmarks/refldm.py --device cuda --steps 100 --cases 16 --dtype bfloat16 --compile default

`naive` works as scripts/inference_dataset.py of the published code does: one case at a time, references one by one
inside the first step and in both branches of guidance, N null references' keys and values kept like any other's,
attention written out, float32, plain memory layout. Weights are random: speed does not depend on them, and that the
outputs are equal is printed beside the times. Memory is measured in a fresh process for each point.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import json
import platform
import resource
import subprocess
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ffhqref.zoo.refldm.config import RefLDMConfig
from ffhqref.zoo.refldm.first_stage import FirstStage
from ffhqref.zoo.refldm.layers import laid_out, picture, tokens
from ffhqref.zoo.refldm.model import RefLDM
from ffhqref.zoo.refldm.schedule import DDIMTable, alphas_cumprod
from ffhqref.zoo.refldm.unet import UNet


class NaiveAttention:
    """Written-out attention over own tokens and all cached ones; while `writing`, its keys and values are cached."""

    rows = None

    def __init__(self) -> None:
        self.cache: dict[int, list[tuple[Tensor, Tensor]]] = {}
        self.writing = False

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Return the attended values."""
        if self.writing:
            self.cache.setdefault(layer, []).append((k, v))
        else:
            kept = self.cache.get(layer, [])
            k = torch.cat([k, *(item for item, _ in kept)], dim=2)
            v = torch.cat([v, *(item for _, item in kept)], dim=2)
        return ((q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)).softmax(dim=-1) @ v


def _written_out(self: Any, x: Tensor) -> Tensor:
    """Stand in for the attention of the first stage."""
    h = self.norm(x)
    q, k, v = (tokens(layer(h)) for layer in (self.q, self.k, self.v))
    out = (q @ k.transpose(1, 2) * q.shape[-1] ** -0.5).softmax(dim=-1) @ v
    return x + self.proj_out(picture(out, x.shape[2], x.shape[3]).contiguous())


class Naive:
    """The published way of working."""

    def __init__(self, config: RefLDMConfig, unet: UNet, first_stage: FirstStage, device: str) -> None:
        self.config = config
        self.device = device
        self.unet = laid_out(copy.deepcopy(unet).to(device), torch.contiguous_format).eval()
        self.first_stage = laid_out(copy.deepcopy(first_stage).to(device), torch.contiguous_format).eval()
        for middle in (self.first_stage.encoder.mid, self.first_stage.decoder.mid):
            middle.attn_1.forward = types.MethodType(_written_out, middle.attn_1)

    def _encode(self, x: Tensor) -> Tensor:
        return self.first_stage.quant_conv(self.first_stage.encoder(x.contiguous()))

    @torch.no_grad()
    def restore(
        self, lq: Tensor, references: Tensor, x: Tensor, steps: int, scale: float, spacing: str
    ) -> tuple[Tensor, Tensor]:
        """Return latent and image of one case: lq [1, 3, H, W], references [N, 3, H, W], x [1, C, h, w]."""
        lq, references, x = (item.to(self.device) for item in (lq, references, x))
        condition = self._encode(lq)
        strip = self._encode(torch.cat(list(references), dim=2)[None])
        attend = NaiveAttention()
        table = DDIMTable.make(
            alphas_cumprod(self.config.timesteps, self.config.linear_start, self.config.linear_end), steps, spacing
        )
        for index in range(len(table)):
            if index == 0:
                attend.writing = True
                for latent in strip.chunk(len(references), dim=3):
                    pair = torch.cat([torch.zeros_like(latent), latent])  # [null, given]
                    padded = torch.cat([pair, torch.zeros_like(pair)], dim=1)
                    self.unet(padded, torch.zeros(2, device=self.device), attend)
                attend.writing = False
            both = torch.cat([x, condition], dim=1).repeat(2, 1, 1, 1)
            t = torch.full((2,), int(table.timesteps[index]), device=self.device)
            without, given = self.unet(both, t, attend).chunk(2)
            noise = without + scale * (given - without)
            now, then = float(table.alpha[index]), float(table.alpha_next[index])
            x_0 = (x - (1 - now) ** 0.5 * noise) / now**0.5
            x = then**0.5 * x_0 + (1 - then) ** 0.5 * noise
        codes = self.first_stage.quantize(x)
        return x, self.first_stage.decoder(self.first_stage.post_quant_conv(codes))


def networks(config: RefLDMConfig, seed: int = 0) -> tuple[UNet, FirstStage]:
    """Return random networks none of whose branches is switched off, and a codebook as wide as the latents."""
    torch.manual_seed(seed)
    unet, first_stage = UNet(config.unet), FirstStage(config.first_stage)
    for parameter in unet.parameters():
        if parameter.dim() > 1 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
        elif not parameter.any():  # a norm without shift would hold constant images at rounding noise
            torch.nn.init.normal_(parameter, std=0.1)
    torch.nn.init.normal_(first_stage.quantize.embedding.weight)
    return unet, first_stage


def inputs(config: RefLDMConfig, size: int, cases: int, references: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return smooth random images and start noise."""
    generator = torch.Generator().manual_seed(1)
    small = torch.rand((cases * (references + 1), 3, 16, 16), generator=generator) * 2 - 1
    faces = torch.nn.functional.interpolate(small, size=(size, size), mode="bilinear")
    side = size // config.first_stage.downscale
    x_T = torch.randn((1, config.channels, side, side), generator=generator)
    return faces[:cases], faces[cases:].unflatten(0, (cases, references)), x_T


def timed(work: Callable[[], Any], device: str) -> tuple[Any, float, float]:
    """Return what the work returns, its seconds, and the seconds of CPU time it took."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    start, cpu = time.perf_counter(), time.process_time()
    result = work()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return result, time.perf_counter() - start, time.process_time() - cpu


def compare(options: argparse.Namespace, config: RefLDMConfig) -> dict[str, Any]:
    """Time ours and naive on the same cases, and compare what comes out."""
    unet, first_stage = networks(config)
    lq, references, x_T = inputs(config, options.size, options.cases, options.references)
    naive = Naive(config, unet, first_stage, options.device)
    ours = RefLDM(
        config,
        unet,
        first_stage,
        device=options.device,
        dtype=getattr(torch, options.dtype),
        batch_size=options.batch_size,
        compile_mode=options.compile,
    )
    settings = (options.steps, options.guidance, options.spacing)

    def run_ours(lq: Tensor = lq, references: Tensor = references) -> tuple[Tensor, Tensor]:
        ours.forget()
        latent = ours.sample_latent(lq, references, x_T, *settings)
        return latent, ours.decode(latent)

    def run_naive() -> list[tuple[Tensor, Tensor]]:
        return [naive.restore(lq[i : i + 1], references[i], x_T, *settings) for i in range(options.naive_cases)]

    if options.device.startswith("cuda") or options.compile:  # warm up: kernels are chosen and compiled on first use
        run_ours()
        naive.restore(lq[:1], references[0], x_T, 1, options.guidance, options.spacing)
    (latent, image), seconds, cpu = timed(run_ours, options.device)
    theirs, naive_seconds, naive_cpu = timed(run_naive, options.device)
    for _ in range(options.repeats - 1):  # in turn, so that a busy spell of the machine does not hit one side alone
        _, again, again_cpu = timed(run_ours, options.device)
        seconds, cpu = min(seconds, again), min(cpu, again_cpu)
        _, again, again_cpu = timed(run_naive, options.device)
        naive_seconds, naive_cpu = min(naive_seconds, again), min(naive_cpu, again_cpu)
    count = options.naive_cases
    golden_latent, golden_image = (torch.cat([pair[i] for pair in theirs]) for i in (0, 1))
    error = (latent[:count] - golden_latent).abs().max() / golden_latent.abs().max()
    flips = (first_stage.quantize.nearest(latent[:count]) != naive.first_stage.quantize.nearest(golden_latent)).sum()
    result = {
        "ours_images_per_second": options.cases / seconds,
        "naive_images_per_second": count / naive_seconds,
        "ratio": (options.cases / seconds) / (count / naive_seconds),
        "ratio_of_cpu_time": (options.cases / cpu) / (count / naive_cpu),
        "latent_max_relative_difference": float(error),
        "codes_that_differ": int(flips),
        "image_max_difference_of_range_2": float((image[:count] - golden_image).abs().max()),
    }
    print(f"ours   {options.cases} images in {seconds:8.2f} s = {result['ours_images_per_second']:.4f} images/s")
    print(f"naive  {count} images in {naive_seconds:8.2f} s = {result['naive_images_per_second']:.4f} images/s")
    print(
        f"ratio  {result['ratio']:.2f}x, of CPU time (which other programs disturb less) "
        f"{result['ratio_of_cpu_time']:.2f}x"
    )
    print(
        f"equal? latent {float(error):.1e} relative, {int(flips)} of {latent[:count, 0].numel()} codes differ, "
        f"image {result['image_max_difference_of_range_2']:.1e} of -1..1"
    )
    if options.shared:
        levels = torch.cat([lq, lq.flip(3)]), torch.cat([references, references])
        _, seconds, cpu = timed(lambda: run_ours(*levels), options.device)
        result["ours_images_per_second_two_levels"] = 2 * options.cases / seconds
        result["ratio_two_levels"] = result["ours_images_per_second_two_levels"] * naive_seconds / count
        result["ratio_two_levels_of_cpu_time"] = (2 * options.cases / cpu) * naive_cpu / count
        print(
            f"ours, two degradation levels with the same references: "
            f"{result['ours_images_per_second_two_levels']:.4f} images/s, {result['ratio_two_levels']:.2f}x, "
            f"of CPU time {result['ratio_two_levels_of_cpu_time']:.2f}x"
        )
    return result


def point(options: argparse.Namespace, config: RefLDMConfig) -> dict[str, Any]:
    """Measure one point: seconds and peak memory of restoring ``cases`` cases in this process."""
    model = RefLDM(config, *networks(config), device=options.device, batch_size=options.batch_size)
    lq, references, x_T = inputs(config, options.size, options.cases, options.references)
    before = _peak(options.device)
    _, seconds, _ = timed(
        lambda: model.decode(
            model.sample_latent(lq, references, x_T, options.steps, options.guidance, options.spacing)
        ),
        options.device,
    )
    return {"seconds": seconds, "peak_mib": _peak(options.device), "peak_before_mib": before}


def _peak(device: str) -> float:
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts the parent process in on Linux, from before this program was started
        return int(next(line for line in status.read_text().splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def curves(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure memory over references and over cases, and time over steps, each point in its own process."""
    found = []
    print(f"\nfull-size architecture at {options.curve_size}, batch size 2, each row a process of its own")
    print("references  cases  steps   seconds   peak memory")
    points = [(n, 2, 2) for n in (1, 3, 5, 8)] + [(2, n, 2) for n in (2, 4, 8)] + [(2, 1, n) for n in (5, 10, 20)]
    for references, cases, steps in points:
        given = {"references": references, "cases": cases, "steps": steps, "size": options.curve_size}
        command = [sys.executable, __file__, "--point", "--batch-size", "2", "--device", options.device]
        command += ["--threads", str(options.threads), "--spacing", "uniform_trailing"]
        command += [f"--{key}={value}" for key, value in given.items()]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found.append(given | json.loads(output))
        print(
            f"{references:10d} {cases:6d} {steps:6d} {found[-1]['seconds']:9.2f} {found[-1]['peak_mib']:9.0f} MiB",
            flush=True,
        )
    return found


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", help="published-style YAML; left out: the released full-size architecture")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", help="of our U-Net")
    parser.add_argument("--compile", help="torch.compile mode of our U-Net")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--references", type=int, default=5)
    parser.add_argument("--cases", type=int, default=1)
    parser.add_argument("--naive-cases", type=int, default=1, help="cases the naive run is timed on")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=1, help="runs of each side; the fastest counts")
    parser.add_argument("--guidance", type=float, default=1.5)
    parser.add_argument("--spacing", default="uniform_trailing")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shared", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--curve-size", type=int, default=256, help="image side for the curves; 0: no curves")
    parser.add_argument("--save", help="write the figures to this JSON file")
    parser.add_argument("--point", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main() -> None:
    """Run the benchmark."""
    options = parse()
    torch.set_num_threads(options.threads)
    config = RefLDMConfig.load(options.config)
    if options.point:
        print(json.dumps(point(options, config)))
        return
    gpu = options.device.startswith("cuda")
    device = torch.cuda.get_device_name() if gpu else f"CPU, {options.threads} threads"
    print(
        f"ReF-LDM at {options.size}, {options.references} references, guidance {options.guidance}, "
        f"{options.steps} steps {options.spacing}, ours in {options.dtype}; {device}"
    )
    if not gpu:
        print("No GPU was used: the figures below say nothing about one.")
    figures: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": device,
        "machine": platform.platform(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "gpu": "used" if gpu else "none was available: no GPU figures in this file",
        "options": {key: value for key, value in vars(options).items() if key not in ("save", "point")},
        "comparison": compare(options, config),
    }
    if options.curve_size:
        figures["curves"] = curves(options)
    if options.save:
        Path(options.save).parent.mkdir(parents=True, exist_ok=True)
        Path(options.save).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
