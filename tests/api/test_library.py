"""The library: its numbers are those of the tables, its errors those of the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

import ffhqref
from ffhqref.cli.main import main
from ffhqref.core.compat import ensure_torchvision
from ffhqref.core.images import read_rgb
from ffhqref.restorers import RESTORERS

from ..conftest import REPOSITORY
from .conftest import scene

SHORT = ("report.n_bootstrap=50",)


def by_case(evaluation, metric):
    mine = evaluation.scores[evaluation.scores["metric"] == metric]
    return dict(zip(mine["case_id"], mine["value"], strict=True))


def test_what_a_metric_leaves_out_is_not_its_worst_case(monkeypatch):
    import pandas as pd

    columns = ["benchmark", "case_id", "metric", "method", "value", "status"]
    rows = [
        ("1", None, "left_out"),
        ("2", None, "failed"),
        ("3", 5.0, "ok"),
        ("4", 9.0, "ok"),
        ("5", None, "unavailable"),
    ]
    scores = pd.DataFrame([("b", case, "ids", "m", value, status) for case, value, status in rows], columns=columns)
    made = pd.DataFrame({"benchmark": "b", "case_id": [*"12345"], "output_path": None, "error": None})
    found = ffhqref.Evaluation("m", Path("w"), ())
    found.__dict__.update(scores=scores, restorations=made)
    monkeypatch.setattr("ffhqref.api.evaluation.read_metadata", lambda *_: {"directions": {"ids": True}})
    assert found.worst("ids")["case_id"].tolist() == ["2", "3", "4"]


def seen_by(method, count=2):
    """What a function or a module is given as references."""
    from ffhqref.api.restorers import FunctionRestorer
    from ffhqref.restorers.base import RestorationBatch

    batch = RestorationBatch(
        lq=torch.rand(1, 3, 8, 8), references=[torch.rand(count, 3, 8, 8)], seeds=[1], case_ids=["a"], ages=None
    )
    return FunctionRestorer(method).restore(batch)


class Module(torch.nn.Module):
    def forward(self, x, ref=None):
        return x * 0 + (0 if ref is None else len(ref)) / 4


@pytest.mark.parametrize(
    ("method", "count"),
    [
        (lambda lq, refs=None: lq * 0 + (0 if refs is None else len(refs)) / 4, 2),
        (lambda lq, reference=(): lq * 0 + len(reference) / 4, 2),
        (lambda lq, Reference_images=(), scale=4: lq * 0 + len(Reference_images) / scale, 2),
        (lambda lq, given: lq * 0 + len(given) / 4, 2),
        (lambda lq, scale=4: lq * 0 + 0 / scale, 0),
        (lambda lq, scale=4, references=(): lq * 0 + len(references) / scale, 2),
        (Module(), 2),
    ],
)
def test_references_reach_a_function_that_has_a_default_for_them(method, count):
    """A method with ``refs=None`` was run without references and ranked as it came out."""
    assert seen_by(method).unique().tolist() == [count / 4]


def test_two_images_for_one_are_not_taken_for_the_first():
    from ffhqref.core.errors import FfhqrefError

    with pytest.raises(FfhqrefError, match="2 images for one LQ image; expected one"):
        seen_by(lambda lq: [lq, lq * 0])


@pytest.mark.parametrize("given", [{"seed": [1, 2, 3]}, {"seed": np.arange(1)}, {"age": [30.0]}])
def test_another_number_of_seeds_or_ages_than_images_is_refused(given):
    images = np.zeros((2, 64, 64, 3), np.uint8)
    with pytest.raises(ffhqref.FfhqrefError, match=r"(seed|age): \d for 2 images; expected one for each"):
        ffhqref.restorer("bicubic", factor=2)(images, **given)
    each = ffhqref.restorer("bicubic", factor=2)(images, seed=np.arange(2), age=(None, 30.0))
    assert each.shape == images.shape


def test_images_that_are_not_square_are_not_squashed(tmp_path):
    wide = np.zeros((64, 128, 3), np.uint8)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    square = np.zeros((64, 64, 3), np.uint8)
    for call in (
        lambda: ffhqref.metric("psnr")(wide, gt=wide),
        lambda: ffhqref.metric("psnr")(square, gt=tmp_path / "wide.png"),
        lambda: ffhqref.degrade(wide),
        lambda: ffhqref.degrade([tmp_path / "wide.png"]),
        lambda: ffhqref.restorer("reference")(square, [tmp_path / "wide.png"]),
        lambda: ffhqref.build_reference_sets([wide]),
    ):
        with pytest.raises(ffhqref.FfhqrefError, match="128x64 pixels, an aligned face is square"):
            call()
    assert ffhqref.metric("psnr", size=None)(wide, gt=wide + 1) > 40, "sizes are kept"


def test_importing_takes_no_torch_and_every_name_is_there():
    code = "import sys, ffhqref; assert 'torch' not in sys.modules and 'pandas' not in sys.modules; dir(ffhqref)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)
    stub = (REPOSITORY / "ffhqref" / "__init__.pyi").read_text(encoding="utf-8")
    for name in ffhqref.__all__:
        assert getattr(ffhqref, name) is not None
        assert f"{name} as {name}" in stub or name == "__version__", "type checkers know it"
    with pytest.raises(AttributeError, match="no attribute 'evaluates'"):
        ffhqref.evaluates  # noqa: B018


def test_metrics_on_paths_arrays_and_tensors_are_those_of_the_table_bit_for_bit(world):
    cases = ffhqref.benchmark("folder", root=world.root)
    assert [case.case_id for case in cases] == ["ann/1", "ann/2", "bob/1", "cy/1"] == list(cases.frame["case_id"])
    for name in ("psnr", "ssim", "ids", "ids_ref"):
        metric = ffhqref.metric(name)
        expected = by_case(world.first, name)
        paths = [world.folder / "out" / f"{case.case_id}.png" for case in cases]
        found = metric(paths, gt=[case.gt for case in cases], references=[case.references for case in cases])
        assert found.dtype == np.float64
        assert dict(zip(expected, found, strict=True)) == expected
    case, image = cases[2], read_rgb(world.folder / "out" / "bob" / "1.png")
    psnr, expected = ffhqref.metric("psnr"), by_case(world.first, "psnr")["bob/1"]
    tensor = torch.from_numpy(image.transpose(2, 0, 1)).float() / 255
    for output in (image, image / 255.0, tensor, tensor.double(), (tensor * 255).byte(), Image.fromarray(image)):
        assert psnr(output, gt=case.gt) == expected
    assert psnr(tensor[None], gt=[case.gt]).tolist() == [expected]
    assert psnr(tensor + 0.4 / 255, gt=case.gt) == expected, "what is saved is 8 bit"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: m(np.zeros((8, 8)), gt=np.zeros((8, 8))), "output: ndarray of shape [8, 8], expected RGB"),
        (lambda m: m(np.full((8, 8, 3), 9.0), gt=0), "output: values from 9 to 9, expected float in 0..1"),
        (lambda m: m(np.zeros((8, 8, 3), np.int64), gt=0), "output: values of type int64, expected uint8"),
        (lambda m: m(torch.full((3, 8, 8), float("nan")), gt=0), "output: NaN or infinite values"),
        (lambda m: m(torch.zeros(8, 8, 3), gt=0), "output: tensor of shape [8, 8, 3], expected [3, H, W]"),
        (lambda m: m(np.zeros((8, 8, 3))), "this metric needs gt=…"),
        (lambda m: m([np.zeros((8, 8, 3))] * 2, gt=[np.zeros((8, 8, 3))]), "2 outputs, but gt of 1"),
        (lambda _: ffhqref.metric("psnrr"), "unknown metric 'psnrr'. Did you mean 'psnr'?"),
        (lambda _: ffhqref.restorer("bicubic", factr=2), "unknown option 'factr'. Did you mean 'factor'?"),
        (lambda _: ffhqref.restorer("reference")(np.zeros((8, 8, 3))), "reference: 0 references, expected at least 1"),
        (lambda _: ffhqref.degrade(np.zeros((8, 8, 3)), "sevre"), "Did you mean 'severe'"),
        (lambda _: ffhqref.degrade(np.zeros((2, 8, 8, 3)), ids=["a", "a"]), "ids: 1 different ones of 2 images"),
        (lambda _: ffhqref.read("nowhere", "scores"), "no workspace of ffhqref"),
        (lambda _: ffhqref.build_reference_sets(np.eye(3), tests=1), "unknown key 'build.tests'. Did you mean 'test'?"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(call, words):
    with pytest.raises(ffhqref.FfhqrefError) as caught:
        call(ffhqref.metric("psnr"))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_mistake_says_what_the_command_line_says(world, capsys):
    with pytest.raises(ffhqref.FfhqrefError) as caught:
        ffhqref.evaluate(world.folder / "out", "sevre", root=world.root)
    assert main(["evaluate", f"outputs={world.folder}/out", "benchmark=[sevre]", f"root={world.root}"]) == 2
    assert capsys.readouterr().err == f"ffhqref: {caught.value}\n"


def test_a_function_is_called_by_what_it_takes_and_ranked_beside_the_others(world):
    seen = []

    def mine(lq, references, seed, age, case_id):
        seen.append((case_id, seed, age, tuple(references.shape)))
        return lq * 0.9 + 0.05

    found = ffhqref.evaluate(mine, "folder", root=world.root, overrides=SHORT)
    cases = ffhqref.benchmark("folder", root=world.root)
    assert seen == [(c.case_id, c.seed, None, (len(c.references), 3, 512, 512)) for c in cases]
    assert found.name == "mine"
    assert set(found.leaderboard["method"]) >= {"first", "mine"}
    for case in cases:
        expected = np.round((case.lq.astype(np.float32) / np.float32(255) * np.float32(0.9) + np.float32(0.05)) * 255)
        made = read_rgb(world.root / "outputs" / "mine" / "folder" / f"{case.case_id}.png")
        assert np.abs(made - expected).max() <= 1
    assert found.mean("psnr")["folder"] == pytest.approx(np.mean(list(by_case(found, "psnr").values())))
    worst = found.worst("psnr", 2)
    assert list(worst["value"]) == sorted(by_case(found, "psnr").values())[:2]
    assert found.report(world.folder / "page.html").stat().st_size > 10_000
    pipeline_seen = ffhqref.read(world.root, "restorations")
    assert set(pipeline_seen["method"]) >= {"first", "mine"}


class Halved(torch.nn.Module):
    """Takes batches, and one image fails."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(0.5))

    def forward(self, lq):
        return lq * self.scale


def test_modules_batches_arrays_and_failures(world):
    found = ffhqref.evaluate(Halved(), root=world.root, name="module", batch_size=3, metrics=["psnr"], overrides=SHORT)
    assert set(found.restorations["status"]) == {"ok"}
    calls = []

    def array(lq):
        calls.append(lq.shape)
        if len(calls) == 2:
            raise ValueError("no face")
        return (lq.numpy().transpose(1, 2, 0) * 127.5).round().astype(np.uint8)

    other = ffhqref.evaluate(array, root=world.root, name="array", version="1", overrides=SHORT)
    status = other.restorations.set_index("case_id")["status"]
    assert status.to_dict() == {"ann/1": "ok", "ann/2": "failed", "bob/1": "ok", "cy/1": "ok"}
    assert any("ValueError: no face" in line for line in other.messages)
    assert other.worst("psnr", 1)["status"].tolist() == ["failed"]
    both = [one.restorations.set_index("case_id")["output_sha256"]["bob/1"] for one in (found, other)]
    assert both[0] == both[1], "a module's tensor and an array of the same levels"
    ffhqref.evaluate(array, root=world.root, name="array", version="1", overrides=SHORT)
    assert len(calls) == 4, "the same version is not called again"


class Pipe:
    """Looks like a pipeline of diffusers."""

    components: dict = {}
    device = "cpu"

    def __call__(self, prompt, image, generator=None):
        noise = torch.rand((), generator=generator)
        made = Image.fromarray((np.asarray(image) * (0.8 + 0.1 * float(noise))).astype(np.uint8))
        return type("Output", (), {"images": [made]})()


def test_a_pipeline_of_diffusers_gets_images_and_generators(world):
    first = ffhqref.evaluate(Pipe(), root=world.root, name="pipe", overrides=SHORT).restorations
    second = ffhqref.evaluate(Pipe(), root=world.root, name="pipe", overrides=SHORT).restorations
    assert set(first["status"]) == {"ok"}
    assert list(first["output_sha256"]) == list(second["output_sha256"]), "the case's seed"


def small_pipeline():
    """Return a latent super-resolution pipeline with small random networks that keep the size, two steps."""
    pytest.importorskip("diffusers")
    ensure_torchvision()
    from diffusers import DDIMScheduler, LDMSuperResolutionPipeline, UNet2DModel, VQModel

    class Few(LDMSuperResolutionPipeline):
        def __call__(self, image, generator=None):
            return super().__call__(image=image, generator=generator, num_inference_steps=2)

    torch.manual_seed(0)
    small = {"block_out_channels": (8,), "norm_num_groups": 4}
    unet = UNet2DModel(
        in_channels=6, out_channels=3, layers_per_block=1, add_attention=False,
        down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",), **small,
    )  # fmt: skip
    made = Few(
        vqvae=VQModel(latent_channels=3, num_vq_embeddings=16, mid_block_add_attention=False, **small),
        unet=unet,
        scheduler=DDIMScheduler(),
    )
    made.set_progress_bar_config(disable=True)
    return made


def test_a_real_pipeline_of_diffusers(world):
    pipeline = small_pipeline()
    done = ffhqref.evaluate(pipeline, root=world.root, name="latent", metrics=["psnr"], overrides=SHORT)
    rows = done.restorations.set_index("case_id")
    assert set(rows["status"]) == {"ok"}
    case = ffhqref.benchmark("folder", root=world.root)[0]
    theirs = pipeline(Image.fromarray(case.lq), torch.Generator().manual_seed(case.seed)).images[0]
    ours = np.asarray(Image.open(world.root / rows["output_path"][case.case_id]))
    assert np.array_equal(ours, np.asarray(theirs))


def test_cases_are_a_torch_dataset(world):
    cases = ffhqref.benchmark("folder", root=world.root)
    batches = list(DataLoader(cases.torch(), batch_size=3, collate_fn=ffhqref.collate, num_workers=2))
    assert [name for batch in batches for name in batch.names] == [case.case_id for case in cases]
    first = batches[0]
    assert torch.equal((first.lq[1] * 255).round().byte().permute(1, 2, 0), torch.from_numpy(cases[1].lq))
    assert torch.equal((first.gt[1] * 255).round().byte().permute(1, 2, 0), torch.from_numpy(cases[1].gt))
    assert first.mask.sum(dim=1).tolist() == [len(case.reference_paths) for case in cases[:3]]
    limited = cases.torch(references=0)[0]
    assert limited.references.shape == (0, 3, 512, 512)
    assert limited.reference_names == ()


def test_a_strangers_function_from_a_script_in_an_empty_folder(world, tmp_path):
    (tmp_path / "stranger.py").write_text("def enhance(lq):\n    return (lq * 0.8).clamp(0, 1)\n")
    (tmp_path / "try.py").write_text(
        "import ffhqref\nfrom stranger import enhance\n"
        f"done = ffhqref.evaluate(enhance, gt={str(world.folder / 'gt')!r}, lq={str(world.folder / 'lq')!r}, "
        "metrics=['psnr'], root='here', overrides=['report.n_bootstrap=50'])\n"
        "print(done.name, len(done.scores), done.mean('psnr')['folder'])\n"
    )
    done = subprocess.run(
        [sys.executable, "try.py"], cwd=tmp_path, env={"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1",
        "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    name, count, mean = done.stdout.split()
    lq, gt = (scene(0, noise).astype(float) for noise in (40, 0))
    assert (name, count) == ("enhance", "4")
    assert float(mean) == pytest.approx(10 * np.log10(255**2 / np.mean((lq * 0.8 - gt) ** 2)), abs=1.5)


def test_restorers_as_functions_are_the_pipelines(world):
    case = ffhqref.benchmark("folder", root=world.root)[0]
    nlm = ffhqref.restorer("bicubic")
    array, tensor = nlm(case.lq), nlm(torch.from_numpy(case.lq.transpose(2, 0, 1)).float() / 255)
    assert array.dtype == np.uint8
    assert tensor.dtype == torch.float32
    assert np.array_equal(array, (tensor.clamp(0, 1) * 255).round().byte().numpy().transpose(1, 2, 0))
    second = ffhqref.restorer("reference")([case.lq] * 2, [case.references, case.references[::-1]])
    assert np.array_equal(second[1], case.references[-1])
    assert set(ffhqref.list_restorers()) >= set(RESTORERS)
    assert {"psnr", "ids"} <= set(ffhqref.list_metrics())
    assert "severe" in ffhqref.list_benchmarks()
    assert "severe" in ffhqref.list_degradations()
    assert "ffhq" in ffhqref.list_datasets()
    assert "dlib" in ffhqref.list_embedders()


def test_degrade_is_the_pipelines(world, tmp_path):
    from ffhqref.degradation.stage import DegradeRow, DegradeStage

    paths = sorted((world.folder / "gt" / "ann").glob("*.png"))
    lq, drawn = ffhqref.degrade(paths, "severe", seed=7)
    rows = [DegradeRow(path.stem, str(path), None, "severe", 7, f"lq/{path.stem}.png") for path in paths]
    made = DegradeStage(tmp_path).process(rows)
    for image, result, row in zip(lq, made, drawn.to_dict("records"), strict=True):
        assert np.array_equal(image, read_rgb(tmp_path / result.lq_path))
        assert {name: getattr(result, name) for name in row} == row
    alone, _ = ffhqref.degrade(torch.from_numpy(read_rgb(paths[1]).transpose(2, 0, 1)), "severe", seed=7, ids="2")
    assert torch.equal((alone * 255).round().byte(), torch.from_numpy(lq[1].transpose(2, 0, 1)))


def test_reference_sets_of_vectors_and_of_images(world):
    rng = np.random.default_rng(0)
    people = rng.normal(size=(8, 32))
    vectors = np.concatenate([people + 0.12 * rng.normal(size=people.shape) for _ in range(4)])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    built = ffhqref.build_reference_sets(vectors.astype(np.float32), min_distance=0.001, test=2, val=1)
    known = built.identities.set_index("image_id")["identity_id"]
    for person in range(8):
        assert known[[str(person + 8 * k) for k in range(4)]].nunique() == 1
    assert built.references[built.references["split"] == "test"]["target_id"].nunique() == 8
    faces = sorted((REPOSITORY / "ffhqref" / "datasets" / "sample").glob("*.jpg"))[:6]
    small = ffhqref.build_reference_sets(faces, test=0, val=0)
    assert list(small.identities["image_id"]) == [path.stem for path in faces]
