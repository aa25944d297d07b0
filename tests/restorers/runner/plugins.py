"""Restorers that are good, faulty, drawing, weighted: what the tests of the restore stage give it."""

import numpy as np
import torch

from ffhqref.restorers import RestorerInfo

SEEN: list[object] = []


class Plugin:
    """Adds 0.1 and remembers what it was shown; the classes below misbehave on cases by name."""

    info = RestorerInfo(name="plugin", max_references=2)
    batch_size = 4

    def __init__(self, device="nowhere"):
        self.device = device

    def restore(self, batch):
        SEEN.append(batch)
        return (batch.lq + 0.1).clamp(0, 1)


class Faulty(Plugin):
    def __init__(self, fault="raise"):
        self.fault = fault

    def restore(self, batch):
        SEEN.append(batch)
        out = (batch.lq + 0.1).clamp(0, 1)
        if "2" not in batch.case_ids:
            return out
        at = batch.case_ids.index("2")
        if self.fault == "raise":
            raise ValueError("cannot do this face\nand more words")
        if self.fault == "exit":
            raise SystemExit(3)
        if self.fault == "memory":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        if self.fault == "nan":
            out[at, 0, 3, 3] = float("nan")
        if self.fault == "nan in company" and len(batch) > 1:
            out[at] = float("nan")
        if self.fault == "shape":
            return out[:, :, :-1]
        if self.fault == "type":
            return out.double()
        if self.fault == "fewer":
            return out[:-1] if len(batch) > 1 else out[:0]
        if self.fault == "none":
            return None
        if self.fault == "range":
            out[at] = batch.lq[at] * 255
        if self.fault == "own input":
            out[at] = batch.lq[at]
        return out


class Truncating(Plugin):
    quantization = "truncate"

    def restore(self, batch):
        return torch.full_like(batch.lq, 100.9 / 255)


class Overshooting(Plugin):
    def restore(self, batch):
        return batch.lq * 1.04 - 0.02


class TwoReferences(Plugin):
    info = RestorerInfo(name="two", min_references=2, max_references=None)


class Drawing(Plugin):
    """Draws from the global generators, as published scripts do."""

    info = RestorerInfo(name="drawing", uses_seed=True)
    batch_size = 1

    def restore(self, batch):
        return torch.rand_like(batch.lq) * 0.5 + float(np.random.rand()) * 0.5  # noqa: NPY002


class Weighted(Plugin):
    def __init__(self, sha256="aa"):
        self.weights_sha256 = {"weights.bin": sha256}


class Versioned(Plugin):
    version = "2"


class OnGpu(Plugin):
    def restore(self, batch):
        held = torch.ones(64 * 2**20, dtype=torch.uint8, device=self.device)
        return batch.lq.to(self.device) * held[0]


class ManyOnGpu(Plugin):
    def restore(self, batch):
        held = torch.ones((len(batch), 64 * 2**20), dtype=torch.uint8, device=self.device)
        return batch.lq.to(self.device) * held[0, 0] * 0.5


class Broken:
    def __init__(self):
        raise OSError("no weights here\nsecond line")


def target(kind):
    return {"_target_": f"{__name__}.{kind.__name__}"}
