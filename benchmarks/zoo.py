"""The zoo: seconds and peak memory an image of each native restorer against the same networks called bare.

    python benchmarks/zoo.py                                   all of them, full size, on the CPU
    python benchmarks/zoo.py gfpgan vqfr --seconds 20          two of them
    python benchmarks/zoo.py --device cuda --steps 10 --save benchmarks/results/zoo.json

Each method has a process of its own. It writes random weights of the published architecture in the published layout,
makes the restorer from them and restores one 512x512 image. The arguments of every outermost call of a network are
stored during the first run; the bare side is exactly these calls, without anything between them: no resizing, ranges,
sampler or noise. Both sides run alternately. `outside` is the time that the restorer's own runs spent outside these
calls, in percent of the time inside: the figure to trust, since both come from the same run. `overhead` compares the
fastest runs of both sides, in wall and in CPU time, and on a machine that does other work it shows that work too.
Memory is the peak of the whole process (on a GPU: what torch had allocated there), weights included, with the
allocator's leftovers handed back before each run; the bare side holds the arguments of one call at a time.

Diffusion methods run few steps. That shortens both sides alike, and makes what a restorer does once an image weigh
more than in use.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import datetime
import gc
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

SIDE = 512
TINY = Path(__file__).parent.parent / "tests" / "zoo" / "tiny"
METHODS = (
    "gfpgan", "restoreformer", "restoreformer_pp", "codeformer", "daefr", "gpen", "vqfr", "vqfr_v1", "dmdnet",
    "asffnet", "difface", "dr2", "pgdiff", "refldm", "faceme", "instantrestore", "osdface", "pmrf", "restorerid",
)  # fmt: skip
MARKS = ("<!-- written by benchmarks/zoo.py -->", "<!-- end of what benchmarks/zoo.py wrote -->")


def model(name: str, folder: Path, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """Write random weights into a folder, and return the constructor's options and what the table says of them."""
    steps = options.steps
    if name == "faceme":
        from faceme import narrow_model

        width = options.faceme_width
        settings = {**narrow_model(folder, width), "info": {}, "steps": steps}
        return settings, f"{steps} steps; SDXL of two levels, {width} and {2 * width} channels; faces given"
    sys.path.insert(0, str(TINY.parent))
    tiny: Any = importlib.import_module(f"tiny.{name}")
    tiny.CONFIG = {}  # nothing but the defaults: the published architecture
    if name == "refldm":
        from ffhqref.zoo.refldm.config import RefLDMConfig

        tiny.CONFIG = RefLDMConfig().to_tree()
    if name == "instantrestore":
        tiny.CONFIG = tiny.published(options.faceme_width)
    if name == "restorerid":
        tiny.CONFIG = {"vision": {"num_hidden_layers": 4}}  # the memory of all 32 would tell nothing more
    settings = tiny.options(folder)
    few: dict[str, tuple[dict[str, Any], str]] = {
        "difface": ({"respacing": "ddim250", "start": steps}, f"{steps} steps of 100"),
        "dr2": ({"N": 1, "tau": 2}, "6 steps, not 26"),
        "pgdiff": ({"respacing": f"ddpm{steps}"}, f"{steps} steps of 1000"),
        "refldm": ({"steps": steps}, f"{steps} steps of 100"),
        "pmrf": ({"steps": steps}, f"{steps} steps of 25"),
        "dmdnet": ({}, "landmarks given"),
        "asffnet": ({}, "landmarks given"),
        "instantrestore": ({"size": SIDE}, f"U-Nets of {options.faceme_width} channels in the first level, not 320"),
        "restorerid": (
            {"steps": steps, "info": {}, "faces": _Face()},
            f"{steps} steps of 50; 4 of 32 layers of CLIP; face and MUSIQ given",
        ),
        "vqfr": ({"fidelity_ratio": 0.0}, ""),
    }
    changes, note = few.get(name, ({}, ""))
    return {**settings, **changes}, note


class _Face:
    """An ArcFace vector of the released length for every reference."""

    signature, dim = "given", 512

    def __call__(self, picture: Any) -> Any:  # noqa: ARG002
        """Return the same face of any image."""
        import numpy as np

        from ffhqref.faces.crops import FFHQ_POINTS
        from ffhqref.zoo.restorerid.faces import ReferenceFace

        return ReferenceFace(FFHQ_POINTS, np.ones(self.dim, np.float32))


class Calls:
    """The outermost calls of networks: how long they take and, while `storing`, their arguments in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.modules: list[Any] = []
        self.storing = False
        self.seconds = 0.0
        self._depth = 0

    def file(self, number: int) -> Path:
        """Return where a call's arguments lie."""
        return self.folder / f"call{number}.pt"

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Watch every network of this process."""
        import torch

        original = torch.nn.Module.__call__

        def call(module: Any, *args: Any, **kwargs: Any) -> Any:
            if self._depth:
                return original(module, *args, **kwargs)
            if self.storing:
                torch.save((args, kwargs), self.file(len(self.modules)))
                self.modules.append(module)
            self._depth += 1
            start = time.perf_counter()
            try:
                return original(module, *args, **kwargs)
            finally:
                synchronise()
                self.seconds += time.perf_counter() - start
                self._depth -= 1

        torch.nn.Module.__call__ = call  # type: ignore[assignment,method-assign]
        try:
            yield
        finally:
            torch.nn.Module.__call__ = original  # type: ignore[method-assign]

    def replayed(self, device: str) -> tuple[float, float]:
        """Make the stored calls again, and return their wall and CPU seconds."""
        import torch

        wall = cpu = 0.0
        with torch.no_grad():
            for number, module in enumerate(self.modules):
                args, kwargs = torch.load(self.file(number), weights_only=False, map_location=device)
                seconds, busy, _ = timed(partial(module, *args, **kwargs))
                del args, kwargs, _
                wall += seconds
                cpu += busy
        return wall, cpu


def synchronise() -> None:
    """Wait for the GPU, where one is in use."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def timed(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return wall seconds, CPU seconds of all threads, and the result of a call."""
    synchronise()
    start, busy = time.perf_counter(), time.process_time()
    result = work()
    synchronise()
    return time.perf_counter() - start, time.process_time() - busy, result


def status(field: str) -> float | None:
    """Return a field of Linux's account of this process's memory in MiB; None on other systems."""
    file = Path("/proc/self/status")
    if not file.exists():
        return None
    return int(next(line for line in file.read_text().splitlines() if line.startswith(field)).split()[1]) / 1024


def start_peak(device: str) -> float | None:
    """Hand back unused memory, forget the peak so far, and return what is held, in MiB."""
    gc.collect()
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return float(torch.cuda.memory_allocated() / 2**20)
    if sys.platform != "linux":
        return None
    with contextlib.suppress(OSError, AttributeError):  # another C library keeps it
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return status("VmRSS")


def peak(device: str) -> float | None:
    """Return the peak since `start_peak`, in MiB."""
    if device.startswith("cuda"):
        import torch

        return float(torch.cuda.max_memory_allocated() / 2**20)
    return status("VmHWM")


def measure(name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one method, measured in this process."""
    import cv2
    import torch

    from ffhqref.restorers import RestorationBatch, make_restorer
    from ffhqref.restorers.base import complete

    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    device = options.device
    settings, note = model(name, folder, options)
    restorer: Any = make_restorer(name, device=device, **settings)
    most = restorer.info.max_references
    count = options.references if most is None else min(options.references, most)
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1 + count, 3, 16, 16, generator=generator)
    pictures = torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bicubic").clamp(0, 1)
    batch = RestorationBatch(pictures[:1], [pictures[1:]], [1], ["case"])

    def run() -> tuple[float, float]:
        if name == "refldm":
            restorer.model.forget()  # else the references of the run before cost nothing
        wall, cpu, _ = timed(lambda: complete(restorer.restore(batch)))
        return wall, cpu

    calls = Calls(folder)
    ours: list[tuple[float, float]] = []
    bare: list[tuple[float, float]] = []
    inside: list[float] = []
    peaks: dict[str, list[float]] = {"ours": [], "bare": [], "held": []}

    def side(which: str, work: Callable[[], tuple[float, float]]) -> tuple[float, float]:
        held = start_peak(device)
        seconds = work()
        highest = peak(device)
        if held is not None and highest is not None:
            peaks["held"].append(held)
            peaks[which].append(highest)
        return seconds

    with calls.watched():
        calls.storing = True
        run()
        calls.storing = False
        began = time.perf_counter()
        while not ours or (len(ours) < options.repeats and time.perf_counter() - began < options.seconds):
            for which in ("ours", "bare") if len(ours) % 2 else ("bare", "ours"):
                if which == "bare":
                    bare.append(side(which, lambda: calls.replayed(device)))
                else:
                    calls.seconds = 0.0
                    ours.append(side(which, run))
                    inside.append(calls.seconds)

    (wall, cpu), (bare_wall, bare_cpu) = (tuple(map(min, zip(*runs, strict=True))) for runs in (ours, bare))
    outside = [total / within - 1 for (total, _), within in zip(ours, inside, strict=True)]
    memory = {key: statistics.median(values) if values else None for key, values in peaks.items()}
    with_references = f"{count} references" if count else ""
    return {
        "method": name,
        "setting": "; ".join(item for item in (with_references, note) if item),
        "runs_of_each_side": len(ours),
        "network_calls": len(calls.modules),
        "seconds": wall,
        "seconds_bare": bare_wall,
        "cpu_seconds": cpu,
        "cpu_seconds_bare": bare_cpu,
        "overhead_percent": 100 * (wall / bare_wall - 1),
        "overhead_percent_of_cpu_time": 100 * (cpu / bare_cpu - 1),
        "outside_percent": 100 * statistics.median(outside),
        "outside_milliseconds": 1e3 * statistics.median(
            total - within for (total, _), within in zip(ours, inside, strict=True)
        ),
        "peak_mib": memory["ours"],
        "peak_mib_bare": memory["bare"],
        "held_before_mib": memory["held"],
        "all_seconds": [wall for wall, _ in ours],
        "all_seconds_bare": [wall for wall, _ in bare],
    }  # fmt: skip


def in_own_process(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one method, or ``error`` and why there are none."""
    command = [sys.executable, __file__, name, "--point"]
    for key in ("device", "steps", "references", "threads", "seconds", "repeats", "faceme_width"):
        command += [f"--{key.replace('_', '-')}", str(getattr(options, key))]
    with tempfile.TemporaryDirectory() as folder:
        threads = {"OMP_NUM_THREADS": str(options.threads), "FFHQREF_OFFLINE": "1"}
        places = {"FFHQREF_WEIGHTS": folder, "TMPDIR": folder}  # the user's record of hashes stays as it is
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, env={**os.environ, **threads, **places}
        )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return {"method": name, "error": lines[-1][:200] if lines else f"exit status {done.returncode}"}
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


COLUMNS = ("method", "s", "bare s", "outside", "overhead", "of CPU time", "peak MiB", "bare MiB", "setting")


def cells(row: dict[str, Any]) -> list[str]:
    """Return a method's row of `COLUMNS`."""
    if "error" in row:
        return [row["method"], *[""] * 7, f"not measured: {row['error']}"]
    percents = (row[key] for key in ("outside_percent", "overhead_percent", "overhead_percent_of_cpu_time"))
    memory = ("" if row[key] is None else f"{row[key]:.0f}" for key in ("peak_mib", "peak_mib_bare"))
    return [
        row["method"],
        f"{row['seconds']:.2f}",
        f"{row['seconds_bare']:.2f}",
        *(f"{value:+.1f} %" for value in percents),
        *memory,
        row["setting"],
    ]


def page(figures: dict[str, Any]) -> str:
    """Return the section of docs/zoo.md, its marks included."""
    versions, threads = figures["versions"], figures["options"]["threads"]
    lines = [
        MARKS[0],
        "",
        "## What a restorer costs beside its networks",
        "",
        f"One {SIDE}x{SIDE} image on {figures['device']}, {figures['date'][:10]}, torch {versions['torch']}: each",
        "restorer against its networks called bare with the same arguments, on random weights, at full size where the",
        "last column does not say otherwise. *Outside* is the time that the restorer's runs spent beside its networks,",
        "in percent of the time inside; *overhead* compares the fastest runs of both sides, in wall and in CPU time.",
        "Peak memory is that of the whole process. Few steps make what is done once an image weigh more than in use.",
        f"Measured by `python benchmarks/zoo.py --threads {threads}`.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(cells(row)) + " |" for row in figures["methods"]),
        "",
        MARKS[1],
    ]
    return "\n".join(lines)


def put(section: str, file: Path) -> None:
    """Put the section into a page, in place of the one there, else at its end."""
    text = file.read_text(encoding="utf-8")
    if MARKS[0] in text:
        before, rest = text.split(MARKS[0], 1)
        text = before + section + rest.split(MARKS[1], 1)[1]
    else:
        text = f"{text.rstrip()}\n\n{section}\n"
    file.write_text(text, encoding="utf-8")


def parse() -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("methods", nargs="*", metavar="METHOD", help=f"of {', '.join(METHODS)}; none: all")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2, help="of diffusion methods, at least 2; dr2 always has 6")
    parser.add_argument("--references", type=int, default=2, help="where a method takes so many")
    parser.add_argument("--seconds", type=float, default=60, help="no further pair of runs of a method after so many")
    parser.add_argument("--repeats", type=int, default=8, help="at most so many pairs of runs")
    parser.add_argument(
        "--faceme-width", type=int, default=128, help="of its first level, a multiple of 64, and InstantRestore's"
    )
    parser.add_argument("--save", type=Path, help="write the figures to this JSON file")
    parser.add_argument("--markdown", type=Path, help="put the table into this page")
    parser.add_argument("--point", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    unknown = [name for name in options.methods if name not in METHODS]
    if unknown:
        parser.error(f"unknown method {unknown[0]}; known: {', '.join(METHODS)}")
    return options


def main() -> None:
    """Measure and print; save where asked to."""
    options = parse()
    if options.point:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(options.methods[0], Path(folder), options)))
        return
    import torch

    gpu = options.device.startswith("cuda")
    device = torch.cuda.get_device_name() if gpu else f"a CPU, {options.threads} threads"
    print(f"one {SIDE}x{SIDE} image; {device}; load average {os.getloadavg()[0]:.1f}")
    print("  ".join(f"{name:>12}" for name in COLUMNS))
    figures: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": device,
        "machine": platform.platform(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "gpu": "used" if gpu else "none was available: no GPU figures in this file",
        "options": {key: getattr(options, key) for key in ("threads", "steps", "references", "seconds", "repeats")},
        "methods": [],
    }
    for name in options.methods or METHODS:
        row = in_own_process(name, options) | {"load_average": os.getloadavg()[0]}
        print("  ".join(f"{cell:>12}" for cell in cells(row)), flush=True)
        figures["methods"].append(row)
        if options.save:  # after each, since all of them take long
            options.save.parent.mkdir(parents=True, exist_ok=True)
            options.save.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    if options.markdown:
        put(page(figures), options.markdown)


if __name__ == "__main__":
    main()
