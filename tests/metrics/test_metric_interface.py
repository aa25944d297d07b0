"""What every metric declares without weights, how plug-ins enter, and that each option is in the signature."""

import importlib.metadata
import inspect
import itertools
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ffhqref.core.compat import ensure_torchvision
from ffhqref.core.errors import ConfigError, WeightsError
from ffhqref.core.images import save_png
from ffhqref.faces.onnx_input import InputRule
from ffhqref.metrics import METRICS, Metric, MetricBatch, make_metric, metric_traits
from ffhqref.metrics._pixels import luma, png_grey
from ffhqref.metrics.base import NEEDS, as_metric
from ffhqref.metrics.dataset_metrics import DATASET_METRICS, ImageFeatures, SetScore, dataset_metric_class
from ffhqref.metrics.iqa import PyiqaMetric
from ffhqref.metrics.jury import JUDGES
from ffhqref.metrics.scoring import resolve_metrics

ensure_torchvision()

BUILT_IN = sorted(set(METRICS.names()) - set(METRICS.plugin_names()))

LOWER = {"age_error", "dists", "flpips_parsenet", "ids_grey_r18", "lmd", "lpips_alex", "lpips_vgg", "niqe"}
"""Of which papers print an arrow downwards."""


@pytest.fixture
def nothing(tmp_path, monkeypatch):
    """A machine without weights."""
    for name in ("TORCH_HOME", "FFHQREF_WEIGHTS", "INSIGHTFACE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "empty"))
    return tmp_path


@pytest.fixture
def plugins(monkeypatch):
    """Return a function that registers objects as another package's metrics."""

    def register(**factories):
        points = []
        for name, factory in factories.items():
            globals()[f"plugin_{name}"] = factory
            points.append(importlib.metadata.EntryPoint(name, f"{__name__}:plugin_{name}", "ffhqref.metrics"))
            monkeypatch.setattr(importlib.metadata.EntryPoint, "load", lambda self: globals()[f"plugin_{self.name}"])
        monkeypatch.setattr(METRICS, "_plugins", {point.name: point for point in points})

    return register


@pytest.mark.parametrize("name", BUILT_IN)
def test_direction_needs_and_role_are_readable_without_weights(nothing, name):
    traits = metric_traits(name, {})
    assert traits.higher_is_better == (name not in LOWER)
    assert traits.needs <= NEEDS
    assert traits.role in {"fidelity", "perception", "identity", "age"}
    assert METRICS.get(name).needs == traits.needs
    try:
        made = make_metric(name)
    except WeightsError:
        return
    assert (made.higher_is_better, made.needs, made.role) == (traits.higher_is_better, traits.needs, traits.role)


@pytest.mark.parametrize("name", sorted(DATASET_METRICS.names()))
def test_dataset_level_metrics_declare_theirs_too(name):
    kind = dataset_metric_class(name)
    assert kind.higher_is_better is False
    assert kind.needs == (frozenset() if name == "fid_ffhq" else {"gt"})


def test_an_option_that_turns_the_direction_is_heard(nothing):
    assert metric_traits("ids", {"unit": "degrees"}).higher_is_better is False
    assert metric_traits("ids_ref_best", {"unit": "degrees"}).higher_is_better is False
    assert metric_traits("ids", {"target": "best"}).needs == {"references"}
    assert metric_traits("ids_refldm", {"target": "first"}).needs == {"references"}


def test_directions_of_unavailable_metrics_whatever_their_label(nothing, plugins):
    class Sharpness(Metric):
        higher_is_better = False

        def __init__(self):
            raise WeightsError("not here")

        def __call__(self, batch):
            raise AssertionError

    def by_function():
        raise WeightsError("not here")

    by_function.higher_is_better, by_function.needs = False, ()

    class Duck:
        higher_is_better, needs = True, frozenset()

        def __init__(self):
            raise WeightsError("not here")

    plugins(sharpness=Sharpness, by_function=by_function, duck=Duck)
    found = resolve_metrics([
        "sharpness", "by_function", "duck",
        {"name": "lpips_vgg", "label": "distance"}, {"name": "ids_refldm", "label": "x"},
    ])  # fmt: skip
    assert found.available == {}
    assert found.directions == {"sharpness": False, "by_function": False, "duck": True, "distance": False, "x": True}
    assert metric_traits("by_function", {}).needs == frozenset()


def test_a_direction_is_never_guessed(nothing, plugins):
    class Silent:
        def __init__(self):
            raise WeightsError("not here")

    class Property(Silent):
        needs = frozenset()

        @property
        def higher_is_better(self):
            return True

    plugins(silent=Silent, property=Property)
    for name in ("silent", "property"):
        with pytest.raises(ConfigError, match="does not declare higher_is_better") as caught:
            resolve_metrics([name])
        assert "\n" not in str(caught.value)


def test_pyiqa_directions_are_those_of_its_metadata(monkeypatch):
    """Also of the table that serves where pyiqa is not installed."""
    pytest.importorskip("pyiqa")
    from ffhqref.metrics import iqa

    configs = iqa._pyiqa_configs()
    for name, higher in (("lpips", False), ("topiq_nr", True), ("niqe", False), ("pieapp", False)):
        assert metric_traits(f"pyiqa:{name}", {}).higher_is_better is higher
    monkeypatch.setattr(iqa.importlib.util, "find_spec", lambda name: None)
    known = iqa._HIGHER | iqa._LOWER | iqa._HIGHER_GT | iqa._LOWER_GT
    for name in known:
        traits = PyiqaMetric.describe({"name": name})
        assert traits.higher_is_better != configs[name].get("lower_better", False), name
        assert ("gt" in traits.needs) == (configs[name]["metric_mode"] == "FR"), name
    with pytest.raises(ConfigError, match=r"unknown without pyiqa.*pip install 'ffhqref\[iqa\]'"):
        metric_traits("pyiqa:afine_nr", {})


class Bright:
    """A metric that knows nothing of the base class."""

    signature, higher_is_better, needs = "bright|v1", True, ()

    def __call__(self, batch):
        return batch.output.mean(dim=(1, 2, 3)).double().numpy()


def test_a_duck_typed_metric_is_wrapped_at_the_door(plugins):
    plugins(bright=Bright)
    metric = make_metric("bright")
    assert isinstance(metric, Metric)
    assert (metric.signature, metric.higher_is_better, metric.needs) == ("bright|v1", True, frozenset())
    assert (metric.role, metric.device) == ("other", "cpu")
    assert metric(MetricBatch(torch.full((1, 3, 4, 4), 0.25))) == pytest.approx([0.25])
    assert not metric.left_out(np.zeros(2)).any()


def test_what_is_no_metric_is_refused_in_one_line():
    class NoSignature(Bright):
        signature = property()

    class NoDirection(Bright):
        higher_is_better = "up"

    class Foreign(Bright):
        needs = ("lq",)

    for made, words in ((3, "cannot be called"), (NoSignature(), "has no 'signature'"),
                        (NoDirection(), "higher_is_better"), (Foreign(), "needs lq")):  # fmt: skip
        with pytest.raises(ConfigError, match=words) as caught:
            as_metric(made, "theirs")
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"crop": "ffhq_templat"}, "ffhq_template"),
        ({"jiters": 3}, "jiters"),
        ({"embedder": "dlip"}, "dlib"),
        ({"embedder": "onnx", "path": "x.onnx", "crop": "refldm_centre"}, "refldm_center"),
    ],
)
@pytest.mark.parametrize("name", ["ids", "ids_ref_mean"])
def test_a_typo_of_crop_or_embedder_options_is_refused_when_the_metric_is_made(nothing, name, options, words):
    with pytest.raises(ConfigError, match=words):
        make_metric(name, **options)


def documented(name):
    """Return a class of docs/extending.md."""
    text = (Path(__file__).parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
    (block,) = [found for found in re.findall(r"```python\n(.*?)```", text, re.S) if f"class {name}(" in found]
    scope = {}
    exec(compile(block, "docs/extending.md", "exec"), scope)
    return scope[name]


def test_the_metric_of_the_docs_works(plugins):
    plugins(contrast=documented("Contrast"))
    metric = make_metric("contrast", power=2.0)
    output, gt = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    expected = [(output[i].double().std() - gt[i].double().std()).abs() ** 2 for i in range(2)]
    np.testing.assert_allclose(metric(MetricBatch(output, gt)), expected)
    assert metric_traits("contrast", {}).higher_is_better is False
    with pytest.raises(ConfigError, match="powr"):
        make_metric("contrast", powr=2.0)


def test_the_dataset_level_metric_of_the_docs_works():
    class Features(ImageFeatures):
        signature = "none"

        def __call__(self, images):
            raise AssertionError

    metric = documented("MeanDistance")(features=Features())
    assert metric(np.full((4, 2), 3.0), np.full((5, 2), 1.0)) == SetScore(8.0, 4, 5, None)
    assert metric.signature == "mean_distance|none|vs gt|v1"


# --- every option that changes a value is in the signature --------------------------------------------------------

OTHERS = {
    "colour": "y", "target": "best", "unit": "degrees", "crop": "refldm_center", "net": "alex", "drop_identical": True,
    "mean": 0.25, "std": 0.25, ("ssim", "colour"): "rgb", ("ids_ref_best", "target"): "first",
    ("ids_grey_r18", "unit"): "cosine",
}  # fmt: skip
"""Another value than the default of an option, of one metric where its default is not the usual one."""


def options_of(name):
    return [
        parameter
        for parameter in inspect.signature(METRICS.get(name)).parameters
        if parameter not in {"runtime", "options"}
    ]


@pytest.fixture(scope="module")
def found_anywhere(tmp_path_factory):
    """A weights folder in which every registered weight file lies, with some content."""
    from ffhqref.weights import files

    folder = tmp_path_factory.mktemp("weights")
    for number, item in enumerate(files.registry().values()):
        path = folder / item.filename
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(str(number).encode())
    return folder


def test_every_option_that_changes_a_value_is_in_the_signature(found_anywhere, monkeypatch, tmp_path, shared):
    """Each option of each metric, set to another value than its default, gives another signature."""
    from ffhqref.weights import files

    class Age:
        def __init__(self, path=None):
            self.signature = f"age|{files.file_sha256(path)[:12]}"

    monkeypatch.setenv("FFHQREF_WEIGHTS", str(found_anywhere))
    monkeypatch.setattr(files, "_check_whole", lambda *_: None)  # no file holds a network, and none is loaded here
    monkeypatch.setattr(files, "_judge", lambda *_: None)
    monkeypatch.setattr(
        "ffhqref.metrics.identity.input_rule", lambda path, mean, std: InputRule(mean or 0.5, std or 0.5)
    )
    monkeypatch.setattr("ffhqref.metrics.age.make_age_model", lambda name, **options: Age(**options))
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    required = {"age_error": {"path": str(tmp_path / "two")}}
    compared = 0
    for name in sorted({*BUILT_IN} - {*JUDGES}):  # judges load their networks at once: see test_jury
        plain = make_metric(name, **required.get(name, {})).signature
        for option in options_of(name):
            if option in {"embedder", "model"}:
                continue  # tested below
            value = str(tmp_path / "one") if "path" in option else OTHERS.get((name, option), OTHERS.get(option))
            assert make_metric(name, **{**required.get(name, {}), option: value}).signature != plain, (name, option)
            compared += 1
    assert compared > 25
    own = {"name": "onnx", "path": str(shared / "models" / "edgeface_xs.onnx"), "crop": "ffhq_template"}
    assert make_metric("ids", embedder=own).signature != make_metric("ids").signature


@pytest.mark.parametrize(
    ("option", "value"), [("mean", 0.4), ("std", 0.4), ("crop", "refldm_center"), ("unit", "degrees")]
)
def test_options_of_the_embedder_are_in_the_signature_of_ids(shared, option, value):
    path = str(shared / "models" / "edgeface_xs.onnx")
    plain = make_metric("ids", embedder="onnx", path=path).signature
    assert make_metric("ids", embedder="onnx", **{"path": path, option: value}).signature != plain


# --- transcriptions against the real call --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def colours():
    """Every combination of 32 levels of each channel, edges included, as an image."""
    levels = np.unique(np.r_[np.arange(0, 256, 9), 1, 254, 255]).astype(np.uint8)
    return np.array(list(itertools.product(levels, repeat=3)), np.uint8).reshape(-1, len(levels), 3)


def test_grey_is_what_cv2_reads_of_a_png(tmp_path, colours):
    save_png(tmp_path / "x.png", colours)
    read = cv2.imread(str(tmp_path / "x.png"), 0)
    np.testing.assert_array_equal(png_grey(colours), read)
    rounded = cv2.cvtColor(colours, cv2.COLOR_RGB2GRAY)
    assert 0.4 < (rounded != read).mean() < 0.6, "cvtColor is another conversion"


def test_grey_of_a_grey_png_is_itself(tmp_path):
    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 8, axis=1)
    cv2.imwrite(str(tmp_path / "x.png"), grey)
    read = cv2.imread(str(tmp_path / "x.png"), 0)
    np.testing.assert_array_equal(png_grey(np.repeat(grey[..., None], 3, axis=2)), read)


def test_luma_is_that_of_pyiqa(colours):
    pytest.importorskip("pyiqa")
    from ffhqref.metrics.iqa import _pyiqa_configs

    _pyiqa_configs()
    from pyiqa.utils.color_util import to_y_channel

    image = torch.from_numpy(colours).permute(2, 0, 1)[None] / 255.0
    for rounded, ours in ((False, luma(image[0].numpy())), (True, np.rint(luma(image[0].numpy()) * 255.0))):
        theirs = to_y_channel(image, 255.0 if rounded else 1.0, "yiq")[0, 0].numpy()
        np.testing.assert_allclose(ours, np.rint(theirs) if rounded else theirs, atol=1e-6 if not rounded else 0)
