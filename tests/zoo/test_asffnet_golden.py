"""ASFFNet against the published script, landmarks given. All that varies is read from the golden folder."""

import hashlib
import re

import numpy as np
import pytest
import torch

from ffhqref.core.errors import WeightsError
from ffhqref.core.images import to_tensor, to_uint8
from ffhqref.weights.tensors import load_into
from ffhqref.zoo.asffnet.choice import distances, one_face
from ffhqref.zoo.asffnet.network import ASFFNet
from ffhqref.zoo.asffnet.restorer import LEAST, ASFFNetRestorer
from ffhqref.zoo.asffnet.warp import mask_of, sampling_grid
from ffhqref.zoo.shared.aligned import enlarged

from .golden_tools import close, layout, off, recorded, relative, same_levels, stored_as

METHOD = "asffnet"
pytestmark = pytest.mark.golden


def tensors(golden_set, case):
    """A case's tensors, with the images of the case that it borrows them from."""
    own = golden_set.tensors(case["file"])
    given = golden_set.tensors(case["input_from"]) if "input_from" in case else {}
    return {name: given[name] for name in ("input_rgb_u8", "ref_rgb_u8") if name in given} | own


def digest(image):
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


def images(case, stored):
    """The LQ image and the references; those that are not chosen are there by their landmarks alone."""
    chosen = stored["ref_rgb_u8"].numpy()
    others = [np.full_like(chosen, index) for index in range(case["n_ref"])]
    others[case["chosen"]] = chosen
    return to_tensor([stored["input_rgb_u8"].numpy()]), to_tensor(others)


def check(golden_set, case):
    stored = tensors(golden_set, case)
    lq, references = images(case, stored)
    known = {digest(to_uint8(enlarged(lq))[0]): stored.get("faces", stored["lq_landmarks"])}
    for image, points in zip(to_uint8(enlarged(references)), stored["ref_landmarks"], strict=True):
        known[digest(image)] = points
    made = ASFFNetRestorer(
        golden_set.checkpoint(case),
        config=golden_set.config[case["config"]],
        landmarks=lambda image: known[digest(image)].numpy(),
        device="cpu",
    )
    taps = {key: key.removeprefix("tap.") for key in stored if key.startswith("tap.")}
    inputs = {}
    made.network.Component_CModel.register_forward_pre_hook(lambda _module, given: inputs.update(warped=given[0]))
    with recorded(made.network, ["", *taps.values()]) as seen:
        image = made.restore_faces(lq, [references])
    for key, name in taps.items():
        close(stored, key, seen[name][-1])
    close(stored, "warped", inputs["warped"])
    wanted = stored_as(stored, "raw_output")
    # the set's README: ten times the published network's own distance to float64 is fair
    assert off(seen[""][0], wanted) * float(wanted.abs().max()) <= 10 * case["float32_vs_float64_max_abs"]
    same_levels(stored, "output_rgb_u8", to_uint8(image)[0])


def first(cases):
    """Return the first case of a stored checkpoint, which is of a small network, or the first of all."""
    return next((case for case in cases if case["checkpoint"]), cases[0])


def test_first_case_end_to_end(golden_set):
    check(golden_set, first(golden_set.cases))


@pytest.mark.slow
def test_other_cases_end_to_end(golden_set):
    for case in golden_set.cases:
        if case != first(golden_set.cases):
            check(golden_set, case)


def test_what_comes_before_the_network(golden_set):
    for case in golden_set.cases:
        stored = tensors(golden_set, case)
        lq, references = images(case, stored)
        for name, image in (("lq", lq), ("ref", references[case["chosen"]][None])):
            same_levels(stored, f"prepared_{name}_rgb_u8", to_uint8(enlarged(image))[0])
        own, given = stored["lq_landmarks"].numpy(), stored["ref_landmarks"].numpy()
        if "faces" in stored:
            assert np.array_equal(one_face(stored["faces"].numpy()), own)
            assert np.array_equal(stored["faces"][case["face_used"]].numpy(), own)
        ours = distances(own, given)
        np.testing.assert_allclose(ours, stored["similarities"].numpy(), rtol=1e-9)
        assert ours.argmin() == case["chosen"]
        assert np.array_equal(mask_of(own), stored["mask"].numpy())
        name = next(key for key in stored if re.fullmatch(r"grid(_s\d+)?", key))
        step = int(name.partition("_s")[2] or 1)
        grid = torch.from_numpy(sampling_grid(own, given[case["chosen"]]))[None, ::step, ::step]
        assert relative(grid, stored[name]) < 1e-5


def test_layouts_are_the_official_ones(golden_set):
    assert golden_set.laid_out
    for name, keys in golden_set.laid_out.items():
        check_layout(golden_set, name, golden_set.keys(keys))


def check_layout(golden_set, name, keys):
    config = ASFFNetRestorer(
        golden_set.folder / "config.json", config=golden_set.config[name], landmarks=one_face
    ).config
    with torch.device("meta"):
        network = ASFFNet(config)
        state = {key: torch.empty(shape) for key, shape in keys.items()}
    assert layout(network) == keys
    load_into(network, state, golden_set.folder, assign=True)
    last = sorted(state)[-1]
    with pytest.raises(WeightsError, match="1 missing"):
        load_into(network, {key: value for key, value in state.items() if key != last}, golden_set.folder)


def test_defaults_are_the_published_ones(golden_set):
    path = golden_set.folder / "config.json"
    made = ASFFNetRestorer(path, landmarks=one_face)
    assert made.config == ASFFNetRestorer(path, config=golden_set.config["full"], landmarks=one_face).config
    assert LEAST == golden_set.config["inference"]["min_references"] == made.info.min_references
