"""FID and KID against matrix roots, plain loops, closed forms, and two packages on random weights."""

import importlib.metadata
import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch

from ffhqref.core.compat import ensure_torchvision
from ffhqref.core.errors import ConfigError, WeightsError
from ffhqref.core.hashing import sha256_file
from ffhqref.core.images import read_rgb, save_png
from ffhqref.engine import LocalEngine
from ffhqref.metrics import MetricRuntime, dataset_metrics
from ffhqref.metrics.base import GROUND_TRUTH
from ffhqref.metrics.dataset_metrics import DATASET_METRICS, DatasetMetric, ImageFeatures, SetScore
from ffhqref.metrics.dataset_scoring import dataset_notes, dataset_reasons, score_datasets
from ffhqref.metrics.scoring import ScoreRow


@pytest.fixture(scope="module")
def features():
    generator = np.random.default_rng(0)
    mix = generator.normal(size=(12, 12))
    return generator.normal(size=(60, 12)) @ mix, generator.normal(0.3, 1.2, size=(45, 12)) @ mix


def test_the_frechet_distance_equals_the_matrix_root(features):
    from scipy.linalg import sqrtm

    (mean_a, cov_a), (mean_b, cov_b) = (dataset_metrics.moments(values) for values in features)
    expected = ((mean_a - mean_b) ** 2).sum() + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real)
    found = dataset_metrics.fid(features[0], features[1])
    assert found.value == pytest.approx(expected, rel=1e-9)
    assert (found.n, found.n_reference) == (60, 45)
    stored = dataset_metrics.fid(features[0], statistics=dataset_metrics.moments(features[1]))
    assert stored.value == pytest.approx(expected, rel=1e-9)
    assert stored.n_reference is None


def test_the_frechet_distance_of_diagonal_gaussians_is_its_closed_form():
    one, two = np.array([1.0, 4.0, 0.0]), np.array([9.0, 0.25, 0.0])  # the third is singular in both
    found = dataset_metrics.frechet_distance((np.zeros(3), np.diag(one)), (np.full(3, 2.0), np.diag(two)))
    assert found == pytest.approx(12.0 + ((np.sqrt(one) - np.sqrt(two)) ** 2).sum())


def test_few_pictures_make_a_singular_covariance_and_still_a_number():
    generator = np.random.default_rng(1)
    found = dataset_metrics.fid(generator.normal(size=(5, 64)), generator.normal(size=(7, 64)))
    assert np.isfinite(found.value)
    assert found.value > 0
    assert "n=5" in found.warning
    same = generator.normal(size=(9, 64))
    assert dataset_metrics.fid(same, same).value == pytest.approx(0.0, abs=1e-5)


def test_large_sets_carry_no_warning():
    generator = np.random.default_rng(2)
    assert (
        dataset_metrics.fid(
            generator.normal(size=(dataset_metrics.SMALL, 2)), generator.normal(size=(dataset_metrics.SMALL, 2))
        ).warning
        is None
    )


def test_kid_of_whole_sets_equals_plain_loops(features):
    x, y = features[0][:20], features[1][:20]

    def kernel(one, two):
        return (one @ two / 12 + 1) ** 3

    within = sum(kernel(z[i], z[j]) for z in (x, y) for i in range(20) for j in range(20) if i != j) / (20 * 19)
    between = sum(kernel(one, two) for one in x for two in y) / 400
    assert dataset_metrics.kid(x, y).value == pytest.approx(within - 2 * between, rel=1e-9)


def test_kid_subsets_are_drawn_by_seed(features):
    first = dataset_metrics.kid(*features, subsets=20, subset_size=30, seed=1)
    assert dataset_metrics.kid(*features, subsets=20, subset_size=30, seed=1) == first
    assert dataset_metrics.kid(*features, subsets=20, subset_size=30, seed=2).value != first.value


def test_wrong_calls_are_one_line(features, tmp_path):
    with pytest.raises(ConfigError, match="one of the two"):
        dataset_metrics.fid(features[0])
    with pytest.raises(ConfigError, match="at least two images"):
        dataset_metrics.fid(features[0][:1], features[1])
    with pytest.raises(ConfigError, match="same network"):
        dataset_metrics.fid(features[0], features[1][:, :5])
    (tmp_path / "x.npz").write_bytes(b"nothing")
    with pytest.raises(WeightsError, match="expected FID statistics"):
        dataset_metrics.stored_statistics(str(tmp_path / "x.npz"))


def test_stored_statistics_are_found_where_pyiqa_puts_them(features, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("FFHQREF_WEIGHTS", str(tmp_path / "empty"))
    (tmp_path / "hub" / "pyiqa").mkdir(parents=True)
    mean, covariance = dataset_metrics.moments(features[0])
    np.savez(tmp_path / "hub" / "pyiqa" / "ffhq_clean_trainval70k_512.npz", mu=mean, sigma=covariance)
    found = dataset_metrics.stored_statistics("ffhq-fid-statistics")
    assert dataset_metrics.fid(features[0], statistics=found).value == pytest.approx(0.0, abs=1e-6)


NAME = "weights-inception-2015-12-05-6726825d.pth"


@pytest.fixture(scope="module")
def random_inception(tmp_path_factory):
    """Random weights of FID's Inception-v3 in a folder, under torch-fidelity's file name."""
    ensure_torchvision()
    pytest.importorskip("torch_fidelity")
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Untrained(FeatureExtractorInceptionV3):
        def load_state_dict(self, state, *_, **__):
            """Keep the random weights."""

    folder = tmp_path_factory.mktemp("inception")
    torch.save({}, folder / "none.pth")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Untrained("fid", ["2048"], feature_extractor_weights_path=str(folder / "none.pth"))
    torch.save(network.state_dict(), folder / NAME)
    return folder


@pytest.fixture(scope="module")
def images(sample_folder):
    return [read_rgb(file) for file in sorted(sample_folder.rglob("*.jpg"))[:4]]


def test_inception_features_equal_those_of_pyiqa(tmp_path, monkeypatch, images, random_inception):
    """pyiqa's folder pipeline in clean mode, on the same weights."""
    pytest.importorskip("pyiqa")
    from pyiqa.archs import fid_arch, inception

    state = torch.load(random_inception / NAME, weights_only=True)
    with monkeypatch.context() as patch:
        patch.setattr(inception, "load_pretrained_network", lambda network, *_, **__: network.load_state_dict(state))
        theirs = inception.InceptionV3(output_blocks=[3]).eval()
    for number, image in enumerate(images):
        save_png(tmp_path / f"{number}.png", image)
    expected = fid_arch.get_folder_features(
        str(tmp_path), theirs, num_workers=0, device="cpu", mode="clean", verbose=False
    )
    ours = dataset_metrics.InceptionFeatures(runtime=MetricRuntime(weights_dir=random_inception))
    found = ours(images)
    assert found.shape == (4, 2048)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    assert "clean bicubic 299" in ours.signature


def test_inception_features_of_images_of_299_px_equal_those_of_torch_fidelity(images, random_inception):
    """Nothing is resized, so the whole extractor is comparable."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    crops = [image[:299, :299] for image in images]
    whole = FeatureExtractorInceptionV3("fid", ["2048"], feature_extractor_weights_path=str(random_inception / NAME))
    expected = whole(torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2))[0].numpy()
    found = dataset_metrics.InceptionFeatures(runtime=MetricRuntime(weights_dir=random_inception))(crops)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_the_file_of_pytorch_fid_is_the_same_file(tmp_path, monkeypatch, random_inception):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("FFHQREF_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError, match="weights-inception-2015-12-05"):
        dataset_metrics.InceptionFeatures()
    (tmp_path / "pt_inception-2015-12-05-6726825d.pth").write_bytes((random_inception / NAME).read_bytes())
    assert "not the published file" in dataset_metrics.InceptionFeatures().signature


def test_a_file_of_another_network_is_one_line(tmp_path):
    pytest.importorskip("torch_fidelity")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "x.pth")
    features = dataset_metrics.InceptionFeatures(path=tmp_path / "x.pth")
    with pytest.raises(WeightsError, match="no Inception-v3") as caught:
        features([np.zeros((64, 64, 3), np.uint8)])
    assert "\n" not in str(caught.value)


class Colour(ImageFeatures):
    """Mean and spread of each channel in the place of Inception's features."""

    signature = "colour"
    calls = 0

    def __call__(self, pictures):
        Colour.calls += len(pictures)
        return np.stack([np.r_[image.mean(axis=(0, 1)), image.std(axis=(0, 1))] for image in pictures])


def test_sets_are_scored_by_method_and_benchmark(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("FFHQREF_WEIGHTS", str(tmp_path))
    generator = np.random.default_rng(0)
    rows, pictures = [], {}
    for case in range(6):
        for name in ("gt", "a", "b"):
            pictures[name, case] = generator.integers(0, 200 if name == "b" else 256, (512, 512, 3), dtype=np.uint8)
            save_png(tmp_path / f"{name}{case}.png", pictures[name, case])
        files = {name: str(tmp_path / f"{name}{case}.png") for name in ("gt", "a", "b")}
        truth = files["gt"], sha256_file(files["gt"])
        for name in ("a", "b"):
            failed = name == "b" and case == 0
            output = (None, None) if failed else (files[name], sha256_file(files[name]))
            rows.append(ScoreRow(name, "moderate", str(case), *output, *truth))
        rows.append(ScoreRow(GROUND_TRUTH, "moderate", str(case), *truth, *truth))
    Colour.calls = 0
    options = {"engine": LocalEngine(1), "journal_dir": tmp_path / "journal", "features": Colour()}
    frame = score_datasets(rows, DATASET_METRICS.names(), **options)
    assert Colour.calls == 17  # every image once
    found = {(row.method, row.metric): row for row in frame.itertuples()}
    vectors = {name: Colour()([pictures[name, case] for case in range(6)]) for name in ("gt", "a", "b")}
    assert found["a", "fid"].value == pytest.approx(dataset_metrics.fid(vectors["a"], vectors["gt"]).value, rel=1e-4)
    assert found["b", "kid"].value == pytest.approx(
        dataset_metrics.kid(vectors["b"][1:], vectors["gt"]).value, rel=1e-4
    )
    assert (found["b", "fid"].n, found["b", "fid"].n_reference) == (5, 6)
    assert "n=5" in found["b", "fid"].note
    assert found["a", "fid_ffhq"].status == "unavailable"
    assert "ffhq_clean_trainval70k_512.npz" in found["a", "fid_ffhq"].note
    assert not isinstance(found["a", "fid_ffhq"].signature, str)
    assert list(dataset_reasons(frame)) == ["fid_ffhq"]
    notes = dataset_notes(frame)["moderate"]
    assert list(notes) == ["fid", "kid"]
    assert notes["fid"].startswith("a: n=6: ")
    assert "; b: n=5: " in notes["fid"]
    assert (GROUND_TRUTH, "fid") not in found
    assert "vs gt" in found["a", "fid"].signature
    calls = Colour.calls
    assert score_datasets(rows[::-1], DATASET_METRICS.names(), **options).equals(frame)
    assert Colour.calls == calls
    save_png(tmp_path / "a0.png", pictures["gt", 0])  # changed behind the table's back
    fresh = score_datasets(rows, ["fid"], **{**options, "journal_dir": tmp_path / "fresh"}).set_index("method")
    assert fresh["status"].to_dict() == {"a": "failed", "b": "ok"}, "a changed image is not taken for the recorded one"
    assert fresh["note"]["a"] == "1 images cannot be read, or are not those recorded"
    assert fresh["n"]["b"] == 5
    save_png(tmp_path / "a0.png", pictures["a", 0])
    np.savez(tmp_path / "ffhq_clean_trainval70k_512.npz", mu=vectors["gt"].mean(axis=0), sigma=np.eye(6))
    stored = score_datasets(rows, ["fid_ffhq"], **options).set_index("method")
    assert list(stored["status"]) == ["ok"] * 3
    assert "vs ffhq 70k at 512 ffhq_clean_trainval70k_512.npz@" in stored.loc["a", "signature"]
    assert stored.loc[GROUND_TRUTH, "value"] < stored.loc["b", "value"]


def world_of_sets(folder, cases=6):
    """Rows of a method ``a`` with a ground truth each, 512 px images of noise."""
    generator = np.random.default_rng(3)
    rows = []
    for case in range(cases):
        files = []
        for name in ("out", "gt"):
            path = folder / f"{name}{case}.png"
            save_png(path, generator.integers(0, 100 if name == "out" else 256, (512, 512, 3), dtype=np.uint8))
            files.append((str(path), sha256_file(path)))
        rows.append(ScoreRow("a", "moderate", str(case), *files[0], *files[1]))
    return rows


@pytest.mark.parametrize("name", ["fid", "kid", "fid_ffhq"])
def test_outputs_that_do_not_count_are_in_no_set(tmp_path, monkeypatch, name):
    """Value and n of a set with pass-through outputs are those of the set without these outputs."""
    monkeypatch.setenv("FFHQREF_WEIGHTS", str(tmp_path))
    rows = world_of_sets(tmp_path)
    np.savez(tmp_path / "ffhq_clean_trainval70k_512.npz", mu=np.zeros(6), sigma=np.eye(6))
    passed = [replace(row, usable=int(row.case_id) >= 2) for row in rows]
    failed = [row if row.usable else replace(row, output_path=None, output_sha256=None) for row in passed]
    options = {"engine": LocalEngine(1), "journal_dir": tmp_path / "journal", "features": Colour()}
    values = [score_datasets(part, [name], **options).iloc[0] for part in (rows, passed, failed)]
    assert [value["n"] for value in values] == [6, 4, 4]
    assert values[1]["value"] == values[2]["value"] != values[0]["value"]
    vectors = Colour()([read_rgb(row.output_path) for row in rows[2:]])
    truths = Colour()([read_rgb(row.gt_path) for row in sorted(rows, key=lambda row: row.gt_sha256)])
    expected = {
        "fid": lambda: dataset_metrics.fid(vectors, truths),
        "kid": lambda: dataset_metrics.kid(vectors, truths, seed=0),
        "fid_ffhq": lambda: dataset_metrics.fid(vectors, statistics=(np.zeros(6), np.eye(6))),
    }[name]().value
    assert values[1]["value"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("lost", ["out2.png", "gt2.png"])
def test_a_set_of_which_an_image_is_gone_has_no_value(tmp_path, lost):
    """Without it the distance was that of another set, under the n of the whole one."""
    rows = world_of_sets(tmp_path, cases=3)
    (tmp_path / lost).unlink()
    options = {"engine": LocalEngine(1), "journal_dir": tmp_path / "journal", "features": Colour()}
    for name in ("fid", "kid"):
        found = score_datasets(rows, [name], **options).iloc[0]
        assert (found["status"], found["note"]) == ("failed", "1 images cannot be read, or are not those recorded")
        assert np.isnan(found["value"])


def test_a_ground_truth_of_two_cases_counts_twice(tmp_path):
    """Outputs counted for each case and ground truths once: the truth itself was at a distance from itself."""
    rows = world_of_sets(tmp_path, cases=4)
    rows = [replace(row, output_path=row.gt_path, output_sha256=row.gt_sha256) for row in rows]
    rows += [replace(rows[0], case_id=f"again{number}") for number in range(5)]
    options = {"engine": LocalEngine(1), "journal_dir": tmp_path / "journal", "features": Colour()}
    found = score_datasets(rows, ["fid"], **options).iloc[0]
    assert found["value"] == pytest.approx(0, abs=1e-6)
    assert (found["n"], found["n_reference"]) == (9, 9)


class Brightness(DatasetMetric):
    """A plug-in: the mean of the first feature, higher is better."""

    higher_is_better = True
    needs = frozenset()

    def __init__(self, runtime=None, seed=0, features=None):
        super().__init__(runtime, seed, features or Colour())
        self.signature = f"brightness|{self.features.signature}|v1"

    def __call__(self, features, reference):
        assert reference is None
        return SetScore(float(features[:, 0].mean()), len(features), None, None)


def test_a_dataset_level_metric_of_another_package(tmp_path, monkeypatch):
    point = importlib.metadata.EntryPoint("brightness", f"{__name__}:Brightness", "ffhqref.dataset_metrics")
    monkeypatch.setattr(DATASET_METRICS, "_plugins", {"brightness": point})
    monkeypatch.setattr(importlib.metadata.EntryPoint, "load", lambda self: Brightness)
    rows = world_of_sets(tmp_path, 3)
    frame = score_datasets(rows, ["brightness"], engine=LocalEngine(1), journal_dir=tmp_path / "journal")
    expected = np.mean([read_rgb(row.output_path)[..., 0].mean() for row in rows])
    assert frame["value"].tolist() == pytest.approx([expected], rel=1e-5)
    assert frame["signature"].tolist() == ["brightness|colour|v1"]
    monkeypatch.setattr(importlib.metadata.EntryPoint, "load", lambda self: lambda: None)
    with pytest.raises(ConfigError, match="derive it from"):
        score_datasets(rows, ["brightness"], engine=LocalEngine(1), journal_dir=tmp_path / "journal")


def test_sets_without_the_network_or_enough_pictures_are_rows(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("FFHQREF_WEIGHTS", str(tmp_path))
    save_png(tmp_path / "x.png", np.zeros((512, 512, 3), np.uint8))
    picture = str(tmp_path / "x.png"), sha256_file(tmp_path / "x.png")
    rows = [ScoreRow("a", "moderate", "0", *picture, *picture)]
    options = {"engine": LocalEngine(1), "journal_dir": tmp_path / "journal"}
    if importlib.util.find_spec("torch_fidelity"):
        frame = score_datasets(rows, DATASET_METRICS.names(), **options)
        assert set(frame["status"]) == {"unavailable"}
        assert frame["note"].str.contains("weights-inception").all()
    few = score_datasets(
        [*rows, ScoreRow("b", "moderate", "0", None, None)], ["fid", "kid"], features=Colour(), **options
    )
    assert dict(zip(few["method"] + few["metric"], few["status"], strict=True)) == {
        "afid": "failed", "akid": "failed", "bfid": "unavailable", "bkid": "unavailable",
    }  # fmt: skip
    with pytest.raises(ConfigError, match="Did you mean 'fid'"):
        score_datasets(rows, ["fidd"], **options)
