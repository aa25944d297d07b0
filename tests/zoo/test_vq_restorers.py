"""GPEN, VQFR, DMDNet and ASFFNet as a user meets them: files, options, failures. Random weights of small networks."""

import dataclasses
import sys
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from ffhqref.core.compat import ensure_torchvision
from ffhqref.core.errors import ConfigError, ImageError, WeightsError
from ffhqref.core.hashing import sha256_file
from ffhqref.core.images import read_rgb, save_png, to_tensor
from ffhqref.restorers import RestorationBatch, make_restorer
from ffhqref.restorers.runner import RestoreRow, RestoreStage
from ffhqref.zoo.dmdnet.boxes import part_boxes
from ffhqref.zoo.shared.landmarks import SCORE, FacexlibLandmarks

from .conftest import tiny

TINY = {name: tiny(name) for name in ("gpen", "vqfr", "vqfr_v1", "dmdnet", "asffnet")}
landmarks = TINY["dmdnet"].landmarks


@pytest.fixture(autouse=True)
def own_record(monkeypatch, tmp_path):
    """Hashes of these files are recorded elsewhere than those of the user's."""
    monkeypatch.setenv("FFHQREF_WEIGHTS", str(tmp_path / "weights"))
    monkeypatch.setitem(sys.modules, __name__, sys.modules[landmarks_or_not.__module__])


def pictures(count, side=512, seed=0):
    coarse = np.random.default_rng(seed).random((count, 3, 8, 8), dtype=np.float32)
    return torch.from_numpy(np.kron(coarse, np.ones((side // 8, side // 8), np.float32)))


@pytest.mark.parametrize("name", TINY)
def test_wrong_truncated_and_foreign_files_are_refused_in_one_line(name, tmp_path):
    options = TINY[name].options(tmp_path)
    assert make_restorer(name, device="cpu", **options).network is not None
    good = options.pop("path")
    state = torch.load(good, weights_only=True)
    inner = state.get("params_ema", state.get("params", state))
    least = min(inner, key=lambda key: inner[key].numel())
    wrong = {
        "truncated": good.read_bytes()[:-5000],
        "text": b"<html>not found</html>",
        "pickle": lambda path: torch.save({"network": Path("elsewhere")}, path),
        "missing tensor": lambda path: torch.save({key: inner[key] for key in inner if key != least}, path),
        "extra tensor": lambda path: torch.save({**inner, "other.weight": torch.ones(2)}, path),
        "other shape": lambda path: torch.save({**inner, least: torch.ones(3, 2, 1)}, path),
    }
    for what, content in wrong.items():
        path = tmp_path / f"{what}.pth"
        path.write_bytes(content) if isinstance(content, bytes) else content(path)
        with pytest.raises(WeightsError) as caught:
            _ = make_restorer(name, device="cpu", path=path, **options).network
        assert str(path) in str(caught.value), what
        assert "\n" not in str(caught.value), what
    with pytest.raises(WeightsError, match="no such file"):
        make_restorer(name, path=tmp_path / "absent.pth", **options)


@pytest.mark.parametrize("name", TINY)
def test_without_weights_the_line_says_what_to_fetch(name, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=r"ffhqref weights fetch|put ASFFNet512.pth from"):
        make_restorer(name)


@pytest.mark.parametrize("name", TINY)
def test_architectures_come_as_mapping_or_file_and_wrong_ones_are_told(name, tmp_path):
    options = TINY[name].options(tmp_path)
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(options["config"]))
    config = make_restorer(name, device="cpu", **options).config
    assert make_restorer(name, device="cpu", **{**options, "config": path}).config == config
    assert make_restorer(name, device="cpu", **{**options, "config": config}).config is config
    first = next(iter(options["config"]))
    for wrong, words in (
        ({**options["config"], first + "x": 1}, f"unknown entry '{first}x'.*{first}"),
        ({**options["config"], first: "many"}, f"{first}='many'"),
        ({**options["config"], first: 0.5}, first),
    ):
        with pytest.raises(ConfigError, match=words):
            make_restorer(name, device="cpu", **{**options, "config": wrong})


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("gpen", {"size": 100}, "power of two"),
        ("gpen", {"isconcat": False}, "isconcat=False"),
        ("vqfr", {"code_dim": 9}, "code_dim"),
        ("vqfr", {"inpfeat_dim": 9}, "inpfeat_dim"),
        ("vqfr", {"code_selection_mode": "Nearest"}, "code_selection_mode"),
        ("vqfr", {"quantizer_opt": {"num_code": 4, "code_dim": 8, "spatial_size": [8, 9]}}, "spatial_size"),
        ("vqfr_v1", {"resolution_scale_rates": [1, 2, 4]}, "resolution_scale_rates"),
        ("vqfr_v1", {"quant_level": ["Level_2"]}, "quant_level"),
        ("vqfr_v1", {"align_from_patch": 2}, "align_from_patch"),
        ("vqfr_v1", {"align_opt": {}}, "align_opt"),
        ("vqfr_v1", {"size": 66}, "size=66"),
    ],
)
def test_networks_that_are_not_built_are_refused(name, change, words, tmp_path):
    options = TINY[name].options(tmp_path)
    with pytest.raises(ConfigError, match=words):
        make_restorer(name, device="cpu", **{**options, "config": {**options["config"], **change}})


@pytest.mark.parametrize(
    ("name", "option", "words"),
    [
        ("vqfr", {"fidelity_ratio": 1.5}, "fidelity_ratio"),
        ("dmdnet", {"mode": "both"}, "mode"),
        ("dmdnet", {"landmarks": 3}, "landmarks"),
        ("asffnet", {"decimals": -1}, "decimals"),
        ("dmdnet", {"landmarks": "no.such:thing"}, "landmarks"),
    ],
)
def test_wrong_options_are_told(name, option, words, tmp_path):
    with pytest.raises(ConfigError, match=words):
        make_restorer(name, device="cpu", **{**TINY[name].options(tmp_path), **option})


@pytest.mark.parametrize("name", ["gpen", "vqfr", "vqfr_v1"])
def test_pictures_of_another_size_come_back_in_theirs(name, tmp_path):
    restorer = make_restorer(name, device="cpu", **TINY[name].options(tmp_path))
    lq = pictures(2, 96)
    made = restorer.restore(RestorationBatch(lq, [torch.zeros(0, 3, 96, 96)] * 2, [0, 1]))
    assert made.shape == lq.shape
    assert 0 <= float(made.min()) <= float(made.max()) <= 1


def test_fidelity_ratio_weighs_the_branch_that_sees_the_picture(tmp_path):
    """The result is a function of texture + ratio · branch: half way between the two ends where it is affine."""
    options = TINY["vqfr"].options(tmp_path)
    restorer = make_restorer("vqfr", device="cpu", **options)
    restorer.network.decoder.conv_out = torch.nn.Conv2d(32, 3, 1)
    lq = pictures(1, 64) * 2 - 1
    with torch.no_grad():
        none, half, whole = (restorer.network(lq, ratio) for ratio in (0.0, 0.5, 1.0))
    assert float((whole - none).abs().max()) > 0.1
    torch.testing.assert_close(half, (none + whole) / 2, rtol=0, atol=1e-5)


# DMDNet: cases that cannot be done


def landmarks_or_not(picture):
    """No face in grey images, landmarks in the corner of black ones."""
    if (picture == picture[0, 0]).all():
        if picture[0, 0, 0]:
            raise ImageError("no face found")
        return np.full((68, 2), 9.0)
    return landmarks(picture)


def save(path, picture):
    save_png(path, (picture.permute(1, 2, 0).numpy() * 255).astype(np.uint8))
    return path


def test_a_case_that_cannot_be_done_is_a_row_and_takes_no_neighbour_along(tmp_path):
    options = {**TINY["dmdnet"].options(tmp_path), "landmarks": f"{__name__}:landmarks_or_not"}
    faces, grey, black = pictures(4), torch.full((3, 512, 512), 0.5), torch.zeros(3, 512, 512)
    lqs = {"a": faces[0], "grey": grey, "black": black, "bad reference": faces[1], "one reference": faces[0]}
    lqs["b"] = faces[1]
    references = {"bad reference": [faces[2], grey], "one reference": [faces[2]]}
    rows = []
    for case, lq in lqs.items():
        lq_path = save(tmp_path / "lq" / f"{case}.png", lq)
        paths = [
            save(tmp_path / "ref" / f"{case} {index}.png", picture)
            for index, picture in enumerate(references.get(case, [faces[2], faces[3]]))
        ]
        rows.append(
            {
                "benchmark": "severe", "case_id": case, "lq_path": str(lq_path), "lq_sha256": sha256_file(lq_path),
                "reference_paths": [str(path) for path in paths],
                "reference_sha256": [sha256_file(path) for path in paths],
                "seed": 7, "age": None, "out_path": f"out/{case}.png",
            }
        )  # fmt: skip
    stage = RestoreStage(tmp_path, "dmdnet", options, batch_size=len(rows))
    results = {result.case_id: result for result in stage.process([RestoreRow(**row) for row in rows])}
    assert {case: result.status for case, result in results.items()} == {
        "a": "ok", "grey": "failed", "black": "failed", "bad reference": "failed", "one reference": "failed", "b": "ok",
    }  # fmt: skip
    assert results["grey"].error == "the LQ image: no face found"
    assert "left eye" in results["black"].error
    assert results["bad reference"].error == "reference 2: no face found"
    assert "1 of at least 2" in results["one reference"].error
    alone = RestoreStage(tmp_path, "dmdnet", options).process([RestoreRow(**{**rows[0], "out_path": "out/alone.png"})])[
        0
    ]
    assert alone.output_sha256 == results["a"].output_sha256
    assert results["a"].output_sha256 != results["b"].output_sha256


def test_references_count_and_the_generic_mode_needs_none(tmp_path):
    options = TINY["dmdnet"].options(tmp_path)
    generic, specific = (
        make_restorer("dmdnet", device="cpu", mode=mode, **options) for mode in ("generic", "specific")
    )
    assert (generic.info.min_references, generic.info.max_references) == (0, 0)
    assert (specific.info.min_references, specific.info.max_references) == (2, None)
    lq, given = pictures(1), pictures(3, seed=1)
    made = [
        restorer.restore(RestorationBatch(lq, [given[:count]], [0]))
        for restorer, count in ((generic, 0), (specific, 2), (specific, 3))
    ]
    assert all(float((one - other).abs().max()) > 1e-4 for one, other in pairwise(made))
    with pytest.raises(ImageError, match="1 references, at least 2"):
        specific.restore(RestorationBatch(lq, [given[:1]], [0]))


def test_asffnet_takes_the_nearest_reference_and_leaves_out_those_without_a_face(tmp_path):
    """Brightness opens the mouth of the tests' landmarks, which no affine fit of a mouth alone explains."""
    options = TINY["asffnet"].options(tmp_path)

    def points(picture):
        found = landmarks_or_not(picture).copy()
        found[54, 1] += float(picture.mean()) / 8
        return found

    restorer = make_restorer("asffnet", device="cpu", **{**options, "landmarks": points})
    lq, others, faceless = pictures(1), pictures(2, seed=1), torch.full((1, 3, 512, 512), 0.5)
    near, far = others[:1] - others[:1].mean() + lq.mean(), others[1:] * 0.3
    near, far = near.clamp(0, 1), far.clamp(0, 1)

    def made(*given):
        return restorer.restore(RestorationBatch(lq, [torch.cat(given)], [0]))

    wanted = made(near, far)
    assert torch.equal(made(faceless, far, near), wanted)
    assert not torch.equal(made(far, far), wanted)
    for given, words in (
        ((near, faceless), r"^1 references with a face, at least 2 are needed \(reference 2: no face found\)$"),
        ((near,), "1 references, at least 2"),
    ):
        with pytest.raises(ImageError, match=words):
            made(*given)
    with pytest.raises(ImageError, match=r"^the LQ image: no face found$"):
        restorer.restore(RestorationBatch(faceless, [others], [0]))
    wide = torch.nn.functional.interpolate(lq, size=(512, 640))
    with pytest.raises(ImageError, match="the LQ image is 640x512"):
        restorer.restore(RestorationBatch(wide, [others], [0]))


def test_larger_pictures_stay_and_must_be_divisible_by_8(tmp_path):
    restorer = make_restorer("dmdnet", device="cpu", mode="generic", **TINY["dmdnet"].options(tmp_path))
    none = torch.zeros(0, 3, 8, 8)
    lq = torch.nn.functional.interpolate(pictures(1), size=(520, 544))
    assert restorer.restore(RestorationBatch(lq, [none], [0])).shape == lq.shape
    with pytest.raises(ImageError, match="544x519"):
        restorer.restore(RestorationBatch(lq[:, :, 1:], [none], [0]))


def test_boxes_are_those_of_a_face_worked_out_by_hand():
    points = np.full((68, 2), 256.0)
    points[17:22], points[36:42] = [180, 200], [180, 240]
    points[22:27], points[42:48] = [330, 230], [330, 240]
    points[48:68] = [260, 400]
    points[48], points[54] = [200, 400], [320, 400]
    # left: 40 up to the brow: 52 above, 52 / 1.9 = 27.37 below, 39.68 to each side; right: 13, 6.84, 9.92
    # mouth: mean (260, 400), half the larger side 60, times 1.1 = 66
    assert part_boxes(points) == {
        "LE": (141, 189, 219, 267),
        "RE": (321, 228, 339, 246),
        "MO": (195, 335, 326, 466),
    }
    low = points.copy()
    low[48:68, 1] = 502  # the box ends at 510 and not at 568
    assert part_boxes(low)["MO"] == (195, 437, 326, 510)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda points: points[:5], "68 finite landmarks"),
        (lambda points: points * np.nan, "68 finite landmarks"),
        (lambda points: points * 0 + 300, "left eye"),  # no extent
        (lambda points: points - np.array([185, 0]), "left eye"),
        (lambda points: points + np.array([400, 0]), "left eye"),
    ],
)
def test_landmarks_that_cannot_be_right_are_refused(change, words):
    points = landmarks(None)
    part_boxes(points)
    with pytest.raises(ImageError, match=words):
        part_boxes(change(points))


# landmarks through facexlib, on random weights put where a user has the real ones


@pytest.fixture(scope="module")
def facexlib_files(tmp_path_factory):
    ensure_torchvision()
    pytest.importorskip("facexlib")
    from facexlib.alignment.awing_arch import FAN
    from facexlib.detection.retinaface import RetinaFace

    folder = tmp_path_factory.mktemp("facexlib")
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        points, detector = FAN(num_modules=4, num_landmarks=98, device="cpu"), RetinaFace("resnet50", device="cpu")
    files = {"facexlib-awing": folder / "alignment.pth", "facexlib-retinaface-r50": folder / "detection.pth"}
    torch.save({"state_dict": points.state_dict()}, files["facexlib-awing"])

    def write(background):
        for head, level in zip(detector.ClassHead, (20.0, 20.0, background), strict=True):  # large faces alone
            head.conv1x1.weight.data.zero_()
            head.conv1x1.bias.data = torch.tensor([level, 0.0] * 2)
        state = {f"module.{key}": value for key, value in detector.state_dict().items()}
        torch.save(state, files["facexlib-retinaface-r50"])

    return files, write, points.eval()


def test_landmarks_are_facexlibs_98_brought_to_68(facexlib_files, sample_folder):
    files, write, network = facexlib_files
    write(-20.0)  # faces everywhere
    picture = read_rgb(sorted(sample_folder.glob("*.jpg"))[0])
    found = FacexlibLandmarks("dmdnet", files)(picture)
    import cv2

    from ffhqref.metrics.faceparts import peaks

    small = cv2.resize(picture, (256, 256)).transpose(2, 0, 1)[None] / np.float32(255)
    with torch.no_grad():
        points = peaks(network(torch.from_numpy(small))[0][-1][0, :-1].numpy()) * 8
    assert found.shape == (68, 2)
    # jaw, nose, eyes, mouth: the same points under other numbers; brows: the middle of their two edges
    same = dict(zip(range(17), range(0, 33, 2), strict=True)) | {n: n + 24 for n in range(27, 36)}
    same |= dict(zip(range(36, 48), [60, 61, 63, 64, 65, 67, 68, 69, 71, 72, 73, 75], strict=True))
    same |= {n: n + 28 for n in range(48, 68)} | {17: 33, 26: 46}
    for ours, theirs in same.items():
        np.testing.assert_allclose(found[ours], points[theirs], atol=1e-3)
    np.testing.assert_allclose(found[19], (points[35] + points[40]) / 2, atol=1e-3)
    np.testing.assert_allclose(found[24], (points[44] + points[48]) / 2, atol=1e-3)


def test_no_face_is_told_and_a_wrong_file_refused(facexlib_files, tmp_path):
    files, write, _ = facexlib_files
    write(20.0)  # background everywhere
    assert SCORE == 0.8
    picture = np.zeros((512, 512, 3), np.uint8)
    with pytest.raises(ImageError, match=r"^no face found$"):
        FacexlibLandmarks("dmdnet", files)(picture)
    options = {key: value for key, value in TINY["dmdnet"].options(tmp_path).items() if key != "landmarks"}
    restorer = make_restorer(
        "dmdnet", device="cpu", **options,
        alignment_path=files["facexlib-awing"], detector_path=files["facexlib-retinaface-r50"],
    )  # fmt: skip
    assert set(restorer.weights_sha256) == {"dmdnet", *files} == set(restorer.info.weights)
    with pytest.raises(ImageError, match=r"^the LQ image: no face found$"):
        restorer.restore(RestorationBatch(to_tensor([picture]), [torch.zeros(2, 3, 512, 512)], [0]))
    swapped = FacexlibLandmarks("dmdnet", {**files, "facexlib-retinaface-r50": options["path"]})
    with pytest.raises(WeightsError, match="RetinaFace"):
        swapped(picture)


def test_descriptions_tell_licence_leak_and_files(tmp_path):
    for name, small in TINY.items():
        info = make_restorer(name, device="cpu", **small.options(tmp_path)).info
        assert ("CelebRef-HQ" if name == "asffnet" else "FFHQ") in info.trained_on
        assert info.paper
        assert info.weights
        assert info.commercial_use == name.startswith("vqfr")
        assert dataclasses.replace(info) == info
