"""IDS in each form against its recipe rebuilt step by step."""

import pickle
import shutil

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from ffhqref.core.errors import ConfigError, WeightsError
from ffhqref.core.hashing import sha256_file
from ffhqref.core.images import read_rgb, save_png, to_tensor
from ffhqref.faces import embed, make_embedder
from ffhqref.metrics import MetricBatch, make_metric
from ffhqref.metrics.grey_arcface import grey_resnet18
from ffhqref.metrics.identity import IDS, EmbeddingCache, FaceEmbedder, share_caches


@pytest.fixture(scope="module")
def files(sample_folder):
    return sorted(sample_folder.rglob("*.jpg"))[:6]


@pytest.fixture(scope="module")
def pictures(files):
    return [read_rgb(file) for file in files]


@pytest.fixture(scope="module")
def batch(pictures):
    """Outputs 0 and 1, ground truths 2 and 3; the first case has references 4, 5 and the second only 5."""
    tensors = to_tensor(pictures)
    return MetricBatch(tensors[:2], tensors[2:4], references=[tensors[4:6], tensors[5:6]])


def test_default_ids_is_the_cosine_of_dlib_vectors(pictures, batch):
    vectors = embed(np.stack(pictures), make_embedder("dlib"), "ffhq_template").astype(np.float64)
    gram = vectors @ vectors.T
    np.testing.assert_allclose(make_metric("ids")(batch), [gram[0, 2], gram[1, 3]], atol=1e-6)
    np.testing.assert_allclose(make_metric("ids_ref")(batch), [gram[0, 4], gram[1, 5]], atol=1e-6)
    best, mean = max(gram[0, 4], gram[0, 5]), (gram[0, 4] + gram[0, 5]) / 2
    np.testing.assert_allclose(make_metric("ids_ref_best")(batch), [best, gram[1, 5]], atol=1e-6)
    np.testing.assert_allclose(make_metric("ids_ref_mean")(batch), [mean, gram[1, 5]], atol=1e-6)
    degrees = np.degrees(np.arccos([gram[0, 2], gram[1, 3]]))
    np.testing.assert_allclose(make_metric("ids", unit="degrees")(batch), degrees, atol=1e-3)


def test_an_output_equal_to_its_target_has_cosine_1_and_angle_0(batch):
    same = MetricBatch(batch.gt, batch.gt)
    np.testing.assert_allclose(make_metric("ids")(same), 1.0, atol=1e-6)
    np.testing.assert_allclose(make_metric("ids", unit="degrees")(same), 0.0, atol=0.1)


def test_a_case_without_references_has_no_value(batch):
    lonely = MetricBatch(batch.output, references=[[], batch.references[0]])
    values = make_metric("ids_ref_best")(lonely)
    assert np.isnan(values[0])
    assert np.isfinite(values[1])


def test_directions_needs_and_signatures(tmp_path):
    cosine, degrees, reference = make_metric("ids"), make_metric("ids", unit="degrees"), make_metric("ids_ref")
    assert cosine.higher_is_better
    assert not degrees.higher_is_better
    assert cosine.needs == {"gt"}
    assert reference.needs == {"references"}
    texts = [cosine.signature, degrees.signature, reference.signature, make_metric("ids_ref_mean").signature]
    assert len(set(texts)) == 4
    for part in ("dlib", "crop=ffhq_template", "vs gt", "cosine"):
        assert part in cosine.signature
    with pytest.raises(ConfigError, match="Did you mean 'degrees'"):
        make_metric("ids", unit="degree")
    with pytest.raises(ConfigError, match="unknown embedder"):
        make_metric("ids", embedder="arcfce")


def test_the_runs_embedder_is_taken_unless_another_is_named(shared, batch):
    own = {"name": "onnx", "path": str(shared / "models" / "edgeface_xs.onnx"), "crop": "refldm_center"}
    assert sha256_file(own["path"])[:12] in make_metric("ids", embedder=own).signature
    assert "crop=refldm_center" in make_metric("ids", embedder=own).signature
    assert "dlib" in make_metric("ids", embedder="dlib").signature
    assert make_metric("psnr", embedder=own).signature.startswith("psnr")
    with pytest.raises(ConfigError, match="no option 'embedder'"):
        make_metric("psnr", embedder="dlib")


def test_refldm_ids_is_the_published_script_step_by_step(shared, tmp_path, monkeypatch, files, batch):
    """scripts/eval.py with another ArcFace-like file in the place of R50 WebFace12M."""
    onnxruntime = pytest.importorskip("onnxruntime")
    monkeypatch.setenv("INSIGHTFACE_HOME", str(tmp_path))
    monkeypatch.setenv("FFHQREF_WEIGHTS", str(tmp_path / "empty"))
    with pytest.raises(WeightsError, match=r"insightface_webface_r50\.onnx"):
        make_metric("ids_refldm")
    (tmp_path / "models").mkdir()
    shutil.copy(shared / "models" / "edgeface_xs.onnx", tmp_path / "models" / "insightface_webface_r50.onnx")
    session = onnxruntime.InferenceSession(str(shared / "models" / "edgeface_xs.onnx"))

    def vector(file):
        image = torch.from_numpy(np.array(Image.open(file).convert("RGB")).astype(np.float32) / 255.0)
        image = image.permute(2, 0, 1)[None] * 2.0 - 1.0
        height, width = image.shape[-2:]
        image = image[:, :, int(height * 0.0625) : int(height * 0.9375), int(width * 0.0625) : int(width * 0.9375)]
        return session.run(None, {"input": F.interpolate(image, (112, 112), mode="area").numpy()})[0][0]

    vectors = [torch.from_numpy(vector(file)) for file in files[:4]]
    expected = [float(F.cosine_similarity(vectors[i], vectors[i + 2], dim=0)) for i in range(2)]
    metric = make_metric("ids_refldm")
    np.testing.assert_allclose(metric(batch), expected, atol=2e-6)
    assert "6.25-93.75% area 112" in metric.signature
    np.testing.assert_allclose(pickle.loads(pickle.dumps(metric))(batch), expected, atol=2e-6)


def random_grey_state():
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, value in grey_resnet18().state_dict().items():
        if name.endswith("num_batches_tracked"):
            state[name] = value
        elif name.endswith("running_var") or ("bn" in name and name.endswith("weight")):
            state[name] = 0.5 + torch.rand(value.shape, generator=generator)
        else:
            fan = max(1, value[0].numel()) if value.ndim > 1 else 25
            state[name] = torch.randn(value.shape, generator=generator) * (1.0 / fan) ** 0.5
    return state


def grey_forward(state, x):
    """The network once more, written from its description with plain functions."""

    def norm(x, name):
        return F.batch_norm(
            x, state[f"{name}.running_mean"], state[f"{name}.running_var"], state[f"{name}.weight"],
            state[f"{name}.bias"], eps=1e-5,
        )  # fmt: skip

    x = F.max_pool2d(F.prelu(norm(F.conv2d(x, state["conv1.weight"], padding=1), "bn1"), state["prelu.weight"]), 2, 2)
    for layer in range(1, 5):
        for block in range(2):
            name, stride = f"layer{layer}.{block}", 2 if layer > 1 and block == 0 else 1
            slope = state[f"{name}.prelu.weight"]
            y = norm(F.conv2d(norm(x, f"{name}.bn0"), state[f"{name}.conv1.weight"], padding=1), f"{name}.bn1")
            y = F.conv2d(F.prelu(y, slope), state[f"{name}.conv2.weight"], stride=stride, padding=1)
            if stride == 2:
                x = norm(F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=2), f"{name}.downsample.1")
            x = F.prelu(norm(y, f"{name}.bn2") + x, slope)
    x = F.linear(norm(x, "bn4").flatten(1), state["fc5.weight"], state["fc5.bias"])
    return norm(x, "bn5")


def test_the_grey_angle_is_the_published_script_step_by_step(tmp_path, monkeypatch, pictures, batch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("FFHQREF_WEIGHTS", str(tmp_path / "empty"))
    state = random_grey_state()
    place = tmp_path / "hub" / "checkpoints"
    place.mkdir(parents=True)
    torch.save({f"module.{name}": value for name, value in state.items()}, place / "resnet18_110.pth")

    def vector(picture):
        save_png(tmp_path / "picture.png", picture)
        grey = cv2.imread(str(tmp_path / "picture.png"), 0)
        grey = cv2.resize(grey, (128, 128), interpolation=cv2.INTER_LINEAR)[np.newaxis].astype(np.float32)
        grey -= 127.5
        grey /= 127.5
        return grey_forward(state, torch.from_numpy(grey)[None])[0].double().numpy()

    vectors = [vector(picture) for picture in pictures[:4]]
    expected = [
        np.arccos(one @ two / (np.linalg.norm(one) * np.linalg.norm(two))) / np.pi * 180
        for one, two in zip(vectors[:2], vectors[2:], strict=True)
    ]
    metric = make_metric("ids_grey_r18")
    assert not metric.higher_is_better
    assert min(expected) > 1
    np.testing.assert_allclose(metric(batch), expected, rtol=1e-4)
    same = MetricBatch(batch.gt, batch.gt)
    np.testing.assert_allclose(metric(same), 0.0, atol=0.1)
    dropping = make_metric("ids_grey_r18", drop_identical=True)
    assert dropping.left_out(dropping(same)).all()
    assert not metric.left_out(metric(same)).any()
    np.testing.assert_allclose(dropping(batch), expected, rtol=1e-4)
    assert not dropping.left_out(dropping(batch)).any()


class Counting(FaceEmbedder):
    signature = "counting"

    def __init__(self):
        self.calls = 0

    def __call__(self, picture):
        self.calls += 1
        return picture.mean(dim=(1, 2)).numpy()


def test_a_hashed_picture_is_embedded_once_for_all_metrics_that_embed_alike(batch):
    one, two = Counting(), Counting()
    metrics = [IDS(EmbeddingCache(one)), IDS(EmbeddingCache(two), "best")]
    share_caches(metrics)
    hashed = MetricBatch(batch.output, batch.gt, batch.references, ["o0", "o1"], ["g0", "g1"], [["r0", "r1"], ["r1"]])
    values = [metric(hashed) for metric in metrics]
    assert (one.calls, two.calls) == (6, 0)
    again = [metric(hashed) for metric in metrics]
    assert one.calls == 6
    np.testing.assert_array_equal(values, again)
    plain = [IDS(EmbeddingCache(Counting()))(batch), IDS(EmbeddingCache(Counting()), "best")(batch)]
    np.testing.assert_array_equal(values, plain)


def test_the_cache_forgets_the_least_recently_used(batch):
    counting = Counting()
    cache = EmbeddingCache(counting, capacity=2)
    for name in ("a", "b", "a", "c", "a", "b"):
        cache.get(batch.output, 0, [name])
    assert counting.calls == 4
