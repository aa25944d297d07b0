"""DAEFR against outputs of the published code. Everything that varies is read from the golden folder."""

import re
from importlib.util import find_spec

import pytest
import torch

from ffhqref.core.errors import WeightsError
from ffhqref.core.images import to_tensor, to_uint8
from ffhqref.weights.tensors import load_into, load_tensors
from ffhqref.zoo.daefr.network import DAEFR, UNUSED, used
from ffhqref.zoo.daefr.restorer import DAEFRRestorer
from ffhqref.zoo.shared.aligned import resize_8bit

from .golden_tools import close, every, layout, off, recorded, same_levels, stored_as

METHOD = "daefr"
pytestmark = [
    pytest.mark.golden,
    pytest.mark.skipif(not find_spec("spandrel_extra_arches"), reason="no spandrel-extra-arches here"),
]


def restorer(golden_set, case):
    return DAEFRRestorer(golden_set.checkpoint(case), config=golden_set.config[case["config"]], device="cpu")


def first_of_each(cases):
    """Return the first case of each width; those of no stored checkpoint, at full size, are another test's."""
    small = [case for case in cases if case["checkpoint"]] or cases[:1]
    return [case for case in small if case["config"] not in {one["config"] for one in small[: small.index(case)]}]


def check(golden_set, case):
    made, stored = restorer(golden_set, case), golden_set.tensors(case["file"])
    lq = to_tensor([golden_set.picture(case)])
    taps = {key: key.removeprefix("tap.") for key in stored if key.startswith("tap.")}
    with recorded(made.network, ["", *taps.values()]) as seen:
        picture = made.restore_faces(lq, [0])
    ((raw, logits),) = seen[""]
    for key, name in taps.items():
        (ours,) = seen[name]
        ours = ours["out"] if isinstance(ours, dict) else ours  # a whole encoder or decoder
        close(stored, key, every(ours, stored[key], 0) if ours.ndim == 3 else ours)
    (wanted,) = [value for key, value in stored.items() if re.fullmatch(r"logits(_t\d+)?", key)]
    # ten times the published network's own distance to float64 is fair, whatever the processor
    apart = (every(logits, wanted, 1) - wanted).abs().max()
    assert float(apart) <= 10 * case["logits_float32_vs_float64_max_abs"]
    indices = logits.argmax(2)
    assert torch.equal(indices.reshape(stored["code_indices"].shape), stored["code_indices"])
    assert len(indices.unique()) == case["unique_codes"]
    wanted = stored_as(stored, "raw_output")
    assert off(raw, wanted) * float(wanted.abs().max()) <= 10 * case["float32_vs_float64_max_abs"]
    same_levels(stored, "output_rgb_u8", to_uint8(picture)[0])


def test_first_case_of_each_width_end_to_end(golden_set):
    for case in first_of_each(golden_set.cases):
        check(golden_set, case)


@pytest.mark.slow
def test_other_cases_end_to_end(golden_set):
    for case in golden_set.cases:
        if case not in first_of_each(golden_set.cases):
            check(golden_set, case)


def test_faces_are_resized_as_published(golden_set):
    for case in golden_set.cases:
        lq = to_tensor([golden_set.picture(case)])
        face = resize_8bit(lq, golden_set.config["inference"]["size"])
        same_levels(golden_set.tensors(case["file"]), "resized_rgb_u8", to_uint8(face)[0])


def test_layouts_are_the_official_ones(golden_set):
    assert golden_set.laid_out
    for name, keys in golden_set.laid_out.items():
        check_layout(golden_set, name, golden_set.keys(keys))


def check_layout(golden_set, name, keys):
    config = DAEFRRestorer(golden_set.folder / "config.json", config=golden_set.config[name]).config
    with torch.device("meta"):
        network = DAEFR(config)
        state = {key: torch.empty(shape) for key, shape in keys.items()}
    skipped = {key for key in state if key.removeprefix("vqvae.").startswith(UNUSED)}
    assert layout(network) == {key: list(value.shape) for key, value in state.items() if key not in skipped}
    load_into(network, used(state), golden_set.folder, assign=True)
    short = {key.removeprefix("vqvae."): value for key, value in state.items()}
    load_into(network, used({**short, "loss.discriminator.weight": torch.ones(1)}), golden_set.folder, assign=True)
    for key in sorted(set(state) - skipped)[:: len(state) // 5]:
        with pytest.raises(WeightsError, match=f"1 missing .first: {key}"):
            load_into(network, used({name: value for name, value in state.items() if name != key}), golden_set.folder)


def test_a_file_without_what_is_not_used_gives_the_same_image(golden_set, tmp_path):
    case = first_of_each(golden_set.cases)[0]
    whole = load_tensors(golden_set.checkpoint(case), wrappers=("state_dict",))
    torch.save(
        {"state_dict": {key.removeprefix("vqvae."): value for key, value in used(whole).items()}}, tmp_path / "a"
    )
    one = restorer(golden_set, case).network.state_dict()
    other = DAEFRRestorer(tmp_path / "a", config=golden_set.config[case["config"]]).network.state_dict()
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[key]) for key, value in one.items())


def test_defaults_are_the_published_ones(golden_set):
    path = golden_set.folder / "config.json"
    made = DAEFRRestorer(path)
    assert made.config == DAEFRRestorer(path, config=golden_set.config["full"]).config
    assert made.side == golden_set.config["inference"]["size"]
