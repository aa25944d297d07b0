"""The published degradations as data: ranges, order, rounding, colour order, and where each is known from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ffhqref.core.errors import ConfigError, did_you_mean

Range = tuple[float, float]


@dataclass(frozen=True)
class Grid:
    """A test set in which every combination occurs once instead of random draws.

    ``axes`` are nested loops, outermost first: a name of `Parameters` and its values. ``sigma_y`` is chosen at
    random from ``sigma_y`` for each picture.
    """

    axes: tuple[tuple[str, tuple[float, ...]], ...]
    sigma_y: tuple[float, ...]

    def __len__(self) -> int:
        return math.prod(len(values) for _, values in self.axes)

    def cell(self, index: int) -> dict[str, float]:
        """Return the values of one combination, counted with the innermost loop fastest."""
        chosen = {}
        for name, values in reversed(self.axes):
            index, step = divmod(index, len(values))
            chosen[name] = values[step]
        return chosen


@dataclass(frozen=True)
class Preset:
    """One published degradation: blur, downsample, noise, JPEG, resize back (protocols.md 2.1).

    Ranges are uniform. Standard deviations of the blur are in pixels of the picture that goes in (512x512 in all
    of the papers), those of the noise in grey levels of 0..255.
    """

    name: str
    sigma: Range
    """Standard deviation of the Gaussian blur in pixels, each axis of an anisotropic one on its own."""
    scale: Range
    """Downsampling factor, real-valued; the reduced sides are rounded down."""
    noise: Range
    """Standard deviation of the Gaussian noise in grey levels."""
    jpeg: Range
    """JPEG quality, drawn real-valued and cut to an integer."""
    source: str
    """Where the figures were read: the code, unless it says paper."""
    kernels: tuple[tuple[str, float], ...] = (("iso", 0.5), ("aniso", 0.5))
    """Kernel types with their probabilities."""
    kernel_size: int = 41
    rotation: Range = (-math.pi, math.pi)
    """Angle of an anisotropic kernel in radians."""
    integers: tuple[str, ...] = ()
    """Names among scale and jpeg_quality that are drawn as whole numbers, both ends included."""
    colour_order: str = "bgr"
    """Order of the channels while noise is added and JPEG is written. With ``"rgb"`` OpenCV's encoder takes red
    for blue, so the colour conversion inside JPEG is another."""
    noise_in_unit_range: bool = False
    """The noise's deviation is drawn in 0..1 instead of 0..255; equal but for the last bits."""
    grey_noise_probability: float | None = 0.0
    """Chance that one noise value serves all three channels; None: the code makes no such draw."""
    precision: str = "float32"
    """Number type up to the JPEG encoder; behind it all codes use float32."""
    rounding: str = "round"
    """``"round"``: the published result is rounded to whole grey levels and clipped. ``"none"``: it stays
    real-valued there, and is rounded here only because a PNG holds whole grey levels."""
    colour_shift: float = 0.0
    """Largest shift of a channel in grey levels, of a random colour shift after the last resize."""
    colour_shift_probability: float | None = None
    """None: the code makes no such draw."""
    grey_probability: float | None = None
    """Chance that the picture loses its colour; None: the code makes no such draw."""
    grey_first: bool = False
    """The loss of colour (and its draw) comes before the blur and not at the end."""
    grey_target: bool = False
    """The published training turns the target grey together with the LQ picture. Here the target stays as it is."""
    grid: Grid | None = None
    """A complete grid in place of random draws; the ranges above then only state its extent."""
    legacy: bool = True
    """Whether `legacy_sequence` can follow the published order of draws."""
    notes: str = ""
    """What differs between paper and code, and what of the published loader is left out."""


_LOADER = "The published loader's horizontal flip is left out."
_GFPGAN_RANGES = "The paper prints sigma 0.2-10, scale 1-8, noise 0-15, JPEG 60-100 (from memory, not re-read)."
_QUALITIES = (30.0, 40.0, 50.0, 60.0, 70.0)
_SIGMAS = (4.0, 8.0, 12.0, 16.0)

_TABLE = (
    Preset(
        "moderate", sigma=(0, 8), scale=(1, 8), noise=(0, 15), jpeg=(60, 100),
        source="FFHQ-Ref-Moderate: ranges from the ReF-LDM paper, steps from ref-ldm ldm/data/ir.py (af6690c)",
        notes="Equals the published code bit for bit (golden/degradation). The released PNG files are the benchmark; "
        "that seed 2024 and the CSV's order reproduce them is unproved.",
    ),
    Preset(
        "severe", sigma=(8, 16), scale=(8, 32), noise=(0, 20), jpeg=(30, 100),
        source="FFHQ-Ref-Severe: ranges from the ReF-LDM paper, steps from ref-ldm ldm/data/ir.py (af6690c)",
        notes="See moderate.",
    ),
    Preset(
        "refldm-train", sigma=(0, 16), scale=(1, 32), noise=(0, 20), jpeg=(30, 100), precision="float64",
        source="ref-ldm configs/refldm.yaml and ldm/data/ir.py; the paper prints the same",
        notes="The 8-bit picture is divided as it is, so numbers are float64 up to JPEG. The loader's draws around "
        "it (flip, shuffle and augmentation of the references) are left out.",
    ),
    Preset(
        "faceme", sigma=(0.2, 10), scale=(1, 16), noise=(0, 15), jpeg=(30, 100), colour_order="rgb",
        rounding="none",
        source="FaceMe dataset.py (8973f65); its CelebRef-HQ test uses the same equation (issue thread)",
        notes="Proved against golden/faceme_training. The choice of references draws from the same generators "
        "in between; that is left out.",
    ),
    Preset(
        "codeformer-s2", sigma=(1, 15), scale=(4, 30), noise=(0, 20), jpeg=(30, 80), noise_in_unit_range=True,
        grey_noise_probability=None,
        source="CodeFormer options/CodeFormer_stage2.yml, basicsr/data/ffhq_blind_dataset.py",
        notes="The paper prints scale 1-30 and JPEG 30-90 (from memory, not re-read). " + _LOADER,
    ),
    Preset(
        "codeformer-s3-small", sigma=(0.1, 10), scale=(1, 12), noise=(0, 15), jpeg=(60, 100),
        noise_in_unit_range=True, grey_noise_probability=None,
        source="CodeFormer options/CodeFormer_stage3.yml, basicsr/data/ffhq_blind_joint_dataset.py",
        notes="The loader makes the large version of each picture from the same generators right after the small "
        "one; a legacy sequence here is of small ones only. " + _LOADER,
    ),
    Preset(
        "codeformer-s3-large", sigma=(1, 15), scale=(4, 30), noise=(0, 20), jpeg=(30, 80),
        noise_in_unit_range=True, grey_noise_probability=None,
        source="CodeFormer options/CodeFormer_stage3.yml, basicsr/data/ffhq_blind_joint_dataset.py",
        notes="See codeformer-s3-small: a legacy sequence here is of large ones only. " + _LOADER,
    ),
    Preset(
        "gfpgan", sigma=(0.1, 10), scale=(0.8, 8), noise=(0, 20), jpeg=(60, 100),
        colour_shift=20, colour_shift_probability=0.3, grey_probability=0.01,
        source="GFPGAN options/train_gfpgan_v1.yml, gfpgan/data/ffhq_degradation_dataset.py",
        notes="The second colour jitter (torchvision, probability 0.3) is left out, and so is its draw. "
        + _GFPGAN_RANGES + " " + _LOADER,
    ),
    Preset(
        "vqfr", sigma=(0.1, 10), scale=(0.8, 8), noise=(0, 20), jpeg=(60, 100),
        source="VQFR options/train/VQFR/train_vqfr_v1_B16_200K.yml: GFPGAN's loader without its colour steps",
        notes=_LOADER,
    ),
    Preset(
        "gpen", sigma=(0.1, 10), scale=(0.8, 8), noise=(0, 20), jpeg=(60, 100), rounding="none",
        colour_shift=20, colour_shift_probability=0.0, grey_probability=0.2, grey_first=True, grey_target=True,
        source="GPEN training/data_loader/dataset_face.py",
        notes="Its authors say that the released degradation is GFPGAN's, not the one of their paper. The rounding "
        "before the last resize changes nothing (JPEG gives whole grey levels). " + _LOADER,
    ),
    Preset(
        "difface-train", sigma=(0.1, 15), scale=(0.8, 32), noise=(0, 20), jpeg=(30, 100),
        grey_probability=0.01, grey_target=True,
        source="DifFace configs/training/swinir_ffhq512.yaml: GFPGAN's loader",
        notes=_LOADER,
    ),
    Preset(
        "difface-test", sigma=(4, 16), scale=(4, 40), noise=(1, 20), jpeg=(30, 70), kernels=(("aniso", 1.0),),
        rotation=(0.0, 0.75 * math.pi), grey_noise_probability=None,
        grid=Grid(
            (
                ("jpeg_quality", _QUALITIES),
                ("scale", tuple(float(scale) for scale in range(4, 41, 4))),
                ("noise_sigma", (1.0, 5.0, 10.0, 15.0, 20.0)),
                ("sigma_x", _SIGMAS),
                ("rotation", (0.0, 0.25 * math.pi, 0.5 * math.pi, 0.75 * math.pi)),
            ),
            sigma_y=_SIGMAS,
        ),
        source="DifFace scripts/prepare_testing_restoration.py, datapipe/face_degradation_testing.py; seed 10000",
        notes="5 x 10 x 5 x 4 x 4 = 4,000 pictures, one for each combination, in the order of the sorted file names. "
        "Keyed draws take a random combination for each picture.",
    ),
    Preset(
        "instantrestore", sigma=(0.1, 12), scale=(1, 12), noise=(10, 20), jpeg=(10, 19), kernels=(("aniso", 1.0),),
        integers=("scale", "jpeg_quality"), colour_order="rgb", rounding="none", grey_noise_probability=None,
        legacy=False,
        source="InstantRestore face_replace/data/datasets/restore_dataset.py",
        notes="Ranges and order are the code's; its two resizes are torchvision's (smoothed when shrinking, in "
        "current versions), here OpenCV's bilinear like everyone else's: results are close, not equal.",
    ),
)  # fmt: skip

PRESETS: Mapping[str, Preset] = MappingProxyType({preset.name: preset for preset in _TABLE})
"""Every published degradation by name. ``moderate`` and ``severe`` are the two test levels of FFHQ-Ref."""


def get_preset(preset: str | Preset) -> Preset:
    """Return a preset by name; a `Preset` of your own is handed back as it is.

    Raises:
        ConfigError: no such name, with the nearest one.
    """
    if isinstance(preset, Preset):
        return preset
    if preset not in PRESETS:
        raise ConfigError(f"unknown degradation '{preset}'.{did_you_mean(preset, PRESETS)} Known: {', '.join(PRESETS)}")
    return PRESETS[preset]
