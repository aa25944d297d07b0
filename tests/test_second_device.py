"""The second device itself: it refuses what a GPU refuses, and lets right code give the values of the CPU."""

import copy
import gc
import io

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ffhqref.core.seeding import seeded_generators

X = torch.linspace(-1, 1, 2 * 3 * 9 * 7).reshape(2, 3, 9, 7)


def network():
    """A bit of everything; the same at every call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.SiLU(), nn.Conv2d(8, 8, 3, stride=2),
            nn.BatchNorm2d(8), nn.PReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5),
        )  # fmt: skip


# what fails on a GPU fails here


class KeepsAConstant(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean = torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1)  # no buffer: it does not move

    def forward(self, x):
        return x - self.mean


def written_in_part(device):
    there = torch.zeros(4, device=device)
    there[1:3].add_(torch.ones(2))


WRONG = {
    "a tensor left on the CPU": lambda d: X.to(d) + torch.ones(7),
    "a result of NumPy not moved": lambda d: X.to(d) * torch.from_numpy(np.ones(7, np.float32)),
    "a network left on the CPU": lambda d: network()(X.to(d)),
    "images left on the CPU": lambda d: network().to(d)(X),
    "a constant that is no buffer": lambda d: KeepsAConstant().to(d)(X.to(d)),
    "tables of both devices joined": lambda d: torch.cat([X.to(d), X]),
    "a stack of both": lambda d: torch.stack([X.to(d), X]),
    "a look-up with an index on the CPU": lambda d: F.embedding(torch.tensor([1]), torch.eye(3, device=d)),
    "gather with an index on the CPU": lambda d: X.to(d).gather(0, torch.zeros(1, 3, 9, 7, dtype=torch.long)),
    "an index on the device for a tensor of the CPU": lambda d: X[torch.tensor([1], device=d)],
    "a mask on the device for a tensor of the CPU": lambda d: X[(X > 0).to(d)],
    "elements on the CPU": lambda d: torch.isin(torch.arange(4, device=d), torch.tensor([1, 2])),
    "a scalar of the device in a tensor of the CPU": lambda d: X * X.to(d).max(),
    "a scalar of the CPU where it is no number": lambda d: torch.stack([torch.ones((), device=d), torch.ones(())]),
    "a result written to the CPU": lambda d: torch.add(X.to(d), 1, out=torch.empty(0)),
    "an update in place from the CPU": written_in_part,
    "a sum on the CPU": lambda d: torch.zeros(()).add_(X.to(d).sum()),
    "numpy()": lambda d: X.to(d).numpy(),
    "numpy() of a parameter": lambda d: network().to(d)[0].bias.detach().numpy(),
    "np.asarray": lambda d: np.asarray(X.to(d)),
    "np.stack": lambda d: np.stack(list(X.to(d))),
    "a generator of the CPU": lambda d: torch.randn(3, device=d, generator=torch.Generator()),
    "a generator of the device": lambda d: torch.randn(3, generator=torch.Generator(d)),
    "a generator of the CPU, in place": lambda d: torch.empty(3, device=d).normal_(generator=torch.Generator()),
    "a generator of the device, in place": lambda d: torch.empty(3).normal_(generator=torch.Generator(d)),
    "a device that is not there": lambda d: X.to(f"{d}:1"),
    "a factory for a device that is not there": lambda d: torch.zeros(3, device=f"{d}:1"),
    "a comparison with what is on the CPU": lambda d: torch.equal(X.to(d), X),
    "a loss of both": lambda d: F.mse_loss(X.to(d), X),
    "a gradient for what is on the CPU": lambda d: network().to(d)(X.to(d)).sum().backward(torch.ones(())),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_a_mistake_is_an_error(second_device, wrong):
    with pytest.raises((RuntimeError, TypeError)) as error:
        wrong("cuda")
    expected = "same device|index|numpy|generator|ordinal|indices|invalid gradient|got a gradient|device"
    assert any(word in str(error.value) for word in expected.split("|"))


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_no_mistake_shows_on_the_cpu(wrong):
    try:
        wrong("cpu")
    except (RuntimeError, IndexError) as error:
        if "cpu:1" not in str(error) and "CPU device index" not in str(error):
            raise


def test_the_same_seed_draws_other_numbers_on_each_device(second_device):
    with seeded_generators(7):
        here, there = torch.rand(4), torch.rand(4, device="cuda")
        later = torch.rand(4)
    with seeded_generators(7):
        torch.testing.assert_close(torch.rand(4), here, rtol=0, atol=0)
        torch.testing.assert_close(torch.rand(4), later, rtol=0, atol=0)  # the device drew from its own
        torch.testing.assert_close(torch.rand(4, device="cuda").cpu(), there.cpu(), rtol=0, atol=0)
    assert not torch.equal(here, there.cpu())
    own = [torch.randn(3, device="cuda", generator=torch.Generator("cuda").manual_seed(3)).cpu() for _ in range(2)]
    assert torch.equal(*own)
    dropped = F.dropout(torch.ones(64, device="cuda"), 0.5)
    assert 0 < float(dropped.count_nonzero()) < 64
    with torch.random.fork_rng():
        inside = torch.rand(3, device="cuda").cpu()
    assert torch.equal(torch.rand(3, device="cuda").cpu(), inside)


# what a GPU does is done here


def made_there(device):
    parts = [
        torch.arange(6, device=device).float(), torch.linspace(0, 1, 5, device=device), torch.eye(3, device=device),
        torch.full((2, 2), 3.0, device=device), torch.tensor([[1.0, 2.0]], device=device), X.to(device).new_ones(2),
        torch.as_tensor(np.arange(3.0), device=device), torch.zeros_like(X, device=device),
    ]  # fmt: skip
    return torch.cat([part.flatten().double() for part in parts])


def indexed(device):
    x = X.to(device).clone()
    x[0, torch.tensor([0, 2])] = torch.tensor(2.0)  # indices and a scalar of the CPU
    x[1, :, 0] = torch.ones(3, 7)  # copies across
    x[..., -1] *= torch.tensor(0.5)
    x[x < 0] = 0.25
    return x[torch.tensor([1, 0])].masked_fill(x > 0.9, torch.tensor(0.0)).where(x > -1, torch.tensor(1.0))


def viewed(device):
    x = X.to(device).clone()
    part = x.permute(0, 2, 3, 1)[:, ::2]
    part.mul_(2)
    x.unsqueeze_(0).squeeze_(0)
    return x.reshape(-1).unfold(0, 5, 3).contiguous() + F.pad(part, (1, 1)).mean()


def attended(device):
    q = X.to(device).flatten(2).transpose(1, 2)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        return F.scaled_dot_product_attention(q, q, q)


def inferred(device):
    x = X.to(device)
    with torch.inference_mode():
        moved = network().to(device)
        rows = [moved(x[index : index + 1]).reshape(-1).cpu().numpy() for index in range(2)]
        moved(x).mul_(2)
    return torch.from_numpy(np.stack(rows)) if device == "cpu" else torch.from_numpy(np.stack(rows)).to(device)


def saved(device):
    stream = io.BytesIO()
    torch.save(network().to(device).state_dict(), stream)
    stream.seek(0)
    again = network().requires_grad_(False)
    again.load_state_dict(torch.load(stream, map_location="cpu", weights_only=True))
    return again.to(device).eval()(X.to(device))


RIGHT = {
    "a network": lambda d: network().eval().to(d)(X.to(d)),
    "a copied network": lambda d: copy.deepcopy(network().to(d)).eval()(X.to(d)),
    "a network saved and loaded": saved,
    "weights copied in": lambda d: [n := network().to(d), n.load_state_dict(network().state_dict())][0].eval()(X.to(d)),
    "a buffer": lambda d: nn.BatchNorm2d(3).to(d)(X.to(d)),
    "factories": made_there,
    "indices": indexed,
    "views": viewed,
    "attention": attended,
    "inference mode": inferred,
    "resized": lambda d: F.interpolate(X.to(d), (5, 11), mode="bicubic", antialias=True),
    "sorted": lambda d: X.to(d).flatten().sort(descending=True).values.cumsum(0),
    "numbers": lambda d: torch.tensor([X.to(d).max().item(), float(X.to(d)[0, 0, 0, 0]), *X.to(d)[0, 0, 0].tolist()]),
    "half precision": lambda d: (X.to(d).half() @ X.to(d).half().transpose(2, 3)).float(),
}


@pytest.mark.parametrize("right", RIGHT.values(), ids=RIGHT.keys())
def test_right_code_gives_the_values_of_the_cpu(second_device, right):
    there, here = right("cuda"), right("cpu")
    assert second_device.operations
    torch.testing.assert_close(there.detach().cpu(), here.detach(), rtol=0, atol=0)


def test_autocast_works_by_the_name_of_the_device(second_device):
    x, moved = X.cuda(), network().cuda()
    with torch.autocast("cuda", dtype=torch.bfloat16):
        assert moved(x).dtype == torch.bfloat16
    with torch.autocast("cpu", dtype=torch.bfloat16):  # the wrong name does nothing on a GPU
        assert moved(x).dtype == torch.float32


def trained(device):
    model = network()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)  # before the move, as CUDA allows
    model.to(device)
    assert optimiser.param_groups[0]["params"][0] is model[0].weight
    for step in range(3):
        optimiser.zero_grad()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=step == 1):
            found = model(X.to(device))
        loss = (found.float().square().mean(dim=1, keepdim=True) * torch.ones(2, 1, device=device)).sum() + found[0, 0]
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    (gradient,) = torch.autograd.grad(model(X.to(device)).exp().sum(), model[0].weight)
    return torch.cat([value.detach().cpu().flatten() for value in (*model.parameters(), gradient)])


def test_training_gives_the_gradients_of_the_cpu(second_device, monkeypatch):
    def whole(device):
        # autocast picks other operations on each device: compare in float32
        monkeypatch.setattr(torch, "autocast", lambda *_, **__: torch.enable_grad())
        return trained(device)

    torch.testing.assert_close(whole("cuda"), whole("cpu"), rtol=1e-4, atol=1e-5)
    monkeypatch.undo()
    assert trained("cuda").isfinite().all()


def test_memory_is_counted_and_runs_out(second_device):
    gc.collect()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    one = torch.zeros(2**18, device="cuda")
    view = one[::2]
    assert torch.cuda.memory_allocated() - before == 2**20
    del one
    assert torch.cuda.memory_allocated() - before == 2**20  # the view holds it
    del view
    assert torch.cuda.memory_allocated() == before
    assert torch.cuda.max_memory_allocated() - before == 2**20
    second_device.capacity = before + 2**19
    with pytest.raises(torch.cuda.OutOfMemoryError, match="out of memory"):
        torch.zeros(2**18, device="cuda")
    assert torch.zeros(2**16, device="cuda").sum() == 0


def test_nothing_of_it_stays(make_second_device):
    with make_second_device():
        assert torch.zeros(3, device="cuda").is_cuda
    assert not torch.cuda.is_available()
    with pytest.raises((RuntimeError, AssertionError, NotImplementedError)):
        torch.zeros(3, device="cuda")
    with pytest.raises((RuntimeError, AssertionError, NotImplementedError)):
        torch.zeros(3).to("cuda")
    assert type(torch.Generator()) is torch.Generator
