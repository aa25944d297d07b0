"""Batches, shared references, guidance, and the parts against other implementations."""

from __future__ import annotations

import copy
import gc
import importlib.util
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ffhqref.core.errors import ConfigError
from ffhqref.zoo.refldm import RefLDM
from ffhqref.zoo.refldm.batching import BoundedStore, in_batches
from ffhqref.zoo.refldm.keys_values import KeysValues, RowGroup, WithReferences

STEPS = 4


def close(ours, theirs) -> bool:
    return bool(torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max())))


@pytest.fixture
def mixed(faces, noise):
    """Five cases with 2, 0, 1, 2 and 3 references."""
    references = [faces(10 + i, n, 3, 64, 64) for i, n in enumerate((2, 0, 1, 2, 3))]
    return faces(1, 5, 3, 64, 64), references, noise(2, 5, 4, 16, 16)


@pytest.mark.parametrize("guidance", [1.0, 1.5])
def test_batch_equals_one_by_one(small_model, mixed, guidance):
    lq, references, x_T = mixed
    together = small_model.sample_latent(lq, references, x_T, STEPS, guidance)
    for index in range(5):
        one = slice(index, index + 1)
        alone = small_model.sample_latent(lq[one], references[one], x_T[one], STEPS, guidance)
        assert close(together[one], alone)


@pytest.mark.parametrize(("guidance", "spacing"), [(1.5, "uniform"), (2.0, "uniform_trailing")])
def test_equal_to_the_published_way_of_working(small_config, small_modules, small_model, mixed, guidance, spacing):
    """The benchmark's naive side: one case, references one by one, both branches apart, attention written out."""
    path = Path(__file__).parents[3] / "benchmarks" / "refldm.py"
    spec = importlib.util.spec_from_file_location("benchmark_refldm", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    naive = benchmark.Naive(small_config, *small_modules, device="cpu")
    lq, references, x_T = mixed
    ours = small_model.sample_latent(lq, references, x_T, STEPS, guidance, spacing)
    for index in (0, 2, 4):
        one = slice(index, index + 1)
        latent, image = naive.restore(lq[one], references[index], x_T[one], STEPS, guidance, spacing)
        assert close(ours[one], latent)
        assert close(small_model.decode(latent), image)


def test_order_and_batch_size_do_not_matter(small_config, small_modules, small_model, mixed):
    lq, references, x_T = mixed
    expected = small_model.sample_latent(lq, references, x_T, STEPS)
    order = [3, 0, 4, 2, 1]
    shuffled = small_model.sample_latent(lq[order], [references[i] for i in order], x_T[order], STEPS)
    assert close(shuffled, expected[order])
    by_two = RefLDM(small_config, *small_modules, batch_size=2, latent_store_bytes=0, keys_store_bytes=0)
    assert close(by_two.sample_latent(lq, references, x_T, STEPS), expected)


def test_references_change_the_result(small_model, mixed):
    lq, references, x_T = mixed
    one = slice(0, 1)
    results = [
        small_model.sample_latent(lq[one], item, x_T[one], STEPS, 1.0)
        for item in (None, references[:1], [references[0][:1]], [references[3]])
    ]
    for i, first in enumerate(results):
        for second in results[i + 1 :]:
            assert not close(first, second)


def test_no_null_tokens_without_guidance(small_model, mixed, monkeypatch):
    lq, references, x_T = mixed
    monkeypatch.setattr(small_model, "_null_keys_values", lambda _: pytest.fail("null references were used"))
    rows = []
    small_model.sample_latent(lq, references, x_T, STEPS, 1.0, callback=lambda step: rows.append(len(step.noise)))
    assert rows == [5] * 4
    with pytest.raises(pytest.fail.Exception):
        small_model.sample_latent(lq, references, x_T, STEPS, 1.5)


def test_guidance_moves_along_the_line_between_the_branches(small_model, mixed):
    """x_0 at scale s is linear in s: checked by solving the DDIM formula at three scales on one step."""
    lq, references, x_T = mixed
    one = slice(0, 1)
    found = {}
    for scale in (1.0, 1.5, 3.0):
        steps = []
        small_model.sample_latent(
            lq[one], references[one], x_T[one], 1, scale, "uniform_trailing", callback=steps.append
        )
        found[scale] = steps[0].x_0
    assert close(found[3.0] - found[1.0], 4 * (found[1.5] - found[1.0]))
    assert not close(found[1.5], found[1.0])


def test_null_references_are_not_the_same_as_none(small_model, faces, noise):
    """ldm/cache_kv.py: zero references are tokens that attention sees."""
    lq, x_T = faces(1, 1, 3, 64, 64), noise(2, 1, 4, 16, 16)
    steps = []
    small_model.sample_latent(lq, faces(3, 1, 2, 3, 64, 64), x_T, STEPS, 1.5, callback=steps.append)
    null = steps[0].noise[:1]
    small_model.sample_latent(lq, None, x_T, STEPS, 1.5, callback=steps.append)
    assert not close(null, steps[-STEPS].noise)


def test_equal_references_are_encoded_once(small_model, faces, noise, monkeypatch):
    lq, x_T = faces(1, 4, 3, 64, 64), noise(2, 1, 4, 16, 16)
    first, second = faces(3, 2, 3, 64, 64), faces(4, 2, 3, 64, 64)
    passes = []
    real = small_model.unet.keys_values
    monkeypatch.setattr(small_model.unet, "keys_values", lambda x: passes.append(len(x)) or real(x))
    shared = small_model.sample_latent(lq, [first, second, first.clone(), first], x_T, STEPS, 1.0)
    assert passes == [2, 2]
    assert close(small_model.sample_latent(lq, torch.stack([first, second, first, first]), x_T, STEPS, 1.0), shared)
    assert passes == [2, 2]  # a later call finds them too
    small_model.forget()
    small_model.sample_latent(lq[:1], [first], x_T, STEPS, 1.0)
    assert passes == [2, 2, 2]


def test_shared_start_noise(small_model, mixed):
    lq, references, x_T = mixed
    same = small_model.sample_latent(lq, references, x_T[:1], STEPS)
    assert close(same, small_model.sample_latent(lq, references, x_T[:1].repeat(5, 1, 1, 1), STEPS))


def test_strip_is_not_one_by_one(small_model, faces):
    references = faces(3, 3, 3, 64, 64)
    strip = small_model.encode(torch.cat(list(references), dim=2)[None])[0]
    latents = small_model.encode_references(references)
    assert close(torch.cat(list(latents), dim=2), strip)
    assert not close(latents, small_model.encode(references))


@given(counts=st.lists(st.integers(1, 6), min_size=1, max_size=3), seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_counted_tokens_equal_repeated_tokens(counts, seed):
    """N equal references as one with a raised logit, against attention written out over all N."""
    generator = torch.Generator().manual_seed(seed)
    rows, heads, length, channels = len(counts), 2, 5, 8

    def draw(*shape):
        return torch.randn(shape, generator=generator)

    q, k, v = (draw(rows, heads, length, channels) * 3 for _ in range(3))
    given = KeysValues((draw(1, heads, 4, channels),), (draw(1, heads, 4, channels),))
    ours = WithReferences([RowGroup(0, rows, given, torch.tensor(counts, dtype=torch.float32))])(0, q, k, v)
    for row, count in enumerate(counts):
        keys = torch.cat([k[row], *[given.keys[0][0]] * count], dim=1)
        values = torch.cat([v[row], *[given.values[0][0]] * count], dim=1)
        expected = (q[row] @ keys.mT / channels**0.5).softmax(-1) @ values
        torch.testing.assert_close(ours[row], expected, rtol=1e-4, atol=1e-5)


def test_low_precision_stays_near(small_config, small_modules, small_model, mixed):
    lq, references, x_T = mixed
    expected = small_model.sample_latent(lq, references, x_T, STEPS)
    for dtype, limit in ((torch.bfloat16, 0.1), (torch.float16, 0.02)):
        low = RefLDM(small_config, *copy.deepcopy(small_modules), dtype=dtype)
        latent = low.sample_latent(lq, references, x_T, STEPS)
        assert latent.dtype == torch.float32
        error = float((latent - expected).norm() / expected.norm())
        assert 0 < error < limit


def test_nearest_code_is_the_nearest(small_model, noise):
    latent = noise(5, 3, 4, 6, 5)
    quantize = small_model.first_stage.quantize
    indices = quantize.nearest(latent)
    codes = quantize.embedding.weight
    for b, y, x in ((0, 0, 0), (1, 5, 4), (2, 3, 1)):
        distances = [float(((latent[b, :, y, x] - code) ** 2).sum()) for code in codes]
        assert int(indices[b, y, x]) == distances.index(min(distances))
    torch.testing.assert_close(quantize(latent), quantize.lookup(indices), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lq": torch.zeros(3, 64, 64)}, "lq must be"),
        ({"lq": torch.zeros(1, 3, 60, 60)}, "multiples of 8"),
        ({"lq": torch.full((1, 3, 64, 64), 255.0)}, "lq must be finite and in -1..1, found 255..255"),
        ({"lq": torch.full((1, 3, 64, 64), float("nan"))}, "finite"),
        ({"references": torch.zeros(1, 3, 64, 64)}, "references must be"),
        ({"references": [torch.zeros(1, 3, 64, 64)] * 2}, "given for 2 cases, lq for 1"),
        ({"references": torch.zeros(1, 2, 3, 32, 32)}, "references must be"),
        ({"x_T": torch.zeros(1, 4, 8, 8)}, "x_T must be"),
        ({"steps": 3}, "3 DDIM steps"),
        ({"spacing": "trailing"}, "unknown DDIM spacing"),
    ],
)
def test_wrong_calls_give_one_line(small_model, change, said):
    call = {
        "lq": torch.zeros(1, 3, 64, 64),
        "references": torch.zeros(1, 1, 3, 64, 64),
        "x_T": torch.zeros(1, 4, 16, 16),
        "steps": 4,
    }
    with pytest.raises(ConfigError, match=said) as refused:
        small_model.sample_latent(**{**call, **change})
    assert "\n" not in str(refused.value)


def test_out_of_memory_halves_the_batch_and_goes_on():
    tried = []

    def work(batch):
        tried.append(list(batch))
        if len(batch) > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return [index * 10 for index in batch]

    found = [value for part in in_batches(work, 7, 5) for value in part]
    assert found == [0, 10, 20, 30, 40, 50, 60]
    assert [len(batch) for batch in tried] == [5, 3, 2, 2, 2, 1]


def test_memory_that_one_case_exceeds_is_an_error():
    def work(batch):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    with pytest.raises(RuntimeError, match="can't allocate"):
        in_batches(work, 4, 4)


def test_other_errors_are_not_taken_for_lack_of_memory():
    tried = []

    def work(batch):
        tried.append(batch)
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        in_batches(work, 4, 4)
    assert len(tried) == 1


def test_sampling_survives_lack_of_memory(small_model, mixed, monkeypatch):
    lq, references, x_T = mixed
    expected = small_model.sample_latent(lq, references, x_T, STEPS)
    real = small_model._denoise

    def tight(x, t, attend):
        if len(x) > 1:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return real(x, t, attend)

    monkeypatch.setattr(small_model, "_denoise", tight)
    assert close(small_model.sample_latent(lq, references, x_T, STEPS), expected)


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 60)), max_size=40))
def test_store_never_holds_more_than_it_may(puts):
    store: BoundedStore[int] = BoundedStore(100)
    for key, size in puts:
        store.put(str(key), key, size)
        assert store.nbytes <= 100
        assert store.get(str(key)) == key


@pytest.mark.slow
def test_compiled_gives_the_same(small_config, small_modules, small_model, mixed):
    import shutil

    if shutil.which("g++") is None:
        pytest.skip("torch.compile needs a C++ compiler")
    lq, references, x_T = mixed
    expected = small_model.sample_latent(lq[:1], references[:1], x_T[:1], STEPS)
    compiled = RefLDM(small_config, *small_modules, compile_mode="default")
    assert close(compiled.sample_latent(lq[:1], references[:1], x_T[:1], STEPS), expected)


def test_sampling_halves_its_batch_where_memory_runs_out(
    small_config, small_modules, small_model, mixed, second_device
):
    lq, references, x_T = mixed
    expected = small_model.sample_latent(lq, references, x_T, STEPS)

    def sampled():
        there = RefLDM(small_config, *copy.deepcopy(small_modules), device="cuda")
        torch.cuda.reset_peak_memory_stats()
        latents = there.sample_latent(lq, references, x_T, STEPS).cpu()
        return latents, torch.cuda.max_memory_allocated()

    _, most = sampled()
    gc.collect()
    second_device.capacity = most - 1  # the whole batch does not fit any more, half of it does
    latents, peak = sampled()
    assert second_device.refused >= 1
    assert peak < most
    torch.testing.assert_close(latents, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("compile_mode", [None, "default"])
def test_gpu_gives_the_same(small_config, small_modules, small_model, mixed, monkeypatch, cuda, request, compile_mode):
    if compile_mode and "second_device" in request.fixturenames:
        pytest.skip("torch.compile needs a GPU")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    lq, references, x_T = mixed
    expected = small_model.sample_latent(lq, references, x_T, STEPS)
    gpu = RefLDM(small_config, *copy.deepcopy(small_modules), device=cuda, compile_mode=compile_mode)
    ours = gpu.sample_latent(lq, references, x_T, STEPS)
    assert ours.device.type == "cuda"
    assert close(ours.cpu(), expected)


def test_a_later_start_goes_on_from_the_noised_latents_of_the_input(small_model, faces, noise):
    lq, references, x_T = faces(1, 2, 3, 64, 64), faces(2, 2, 1, 3, 64, 64), noise(3, 1, 4, 16, 16)
    seen = []
    whole = small_model.sample_latent(lq, references, x_T, 10, 1.5, callback=seen.append)
    cut = []
    later = small_model.sample_latent(lq, references, x_T, 10, 1.5, start_time=501, callback=cut.append)
    assert len(seen) == 10
    assert len(cut) == 6
    # The first step's input, rebuilt: the published schedule's share of the input's latents and of the noise.
    alpha = torch.linspace(0.0015**0.5, 0.0155**0.5, 1000, dtype=torch.float64).square().neg().add(1).cumprod(0)[501]
    assert float(small_model.alphas[501]) == pytest.approx(float(alpha), rel=1e-6)
    start = float(alpha) ** 0.5 * small_model.encode(lq) + float(1 - alpha) ** 0.5 * x_T
    torch.testing.assert_close(cut[0].x, start, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(whole, later)
    assert len(small_model.alphas) == 1000
    again = small_model.sample_latent(lq, references, x_T, 10, 1.5, start_time=999)
    assert again.shape == whole.shape
