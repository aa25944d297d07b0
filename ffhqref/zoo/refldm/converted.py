"""The one safetensors file that is made of the published pair of checkpoints, and read from then on."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch

from ffhqref.core.errors import WeightsError
from ffhqref.core.hashing import content_key, sha256_file
from ffhqref.weights.files import file_sha256
from ffhqref.zoo.refldm.checkpoint import (
    FIRST_STAGE,
    UNET,
    RefLDMWeights,
    check_shapes,
    load_published,
    read_tensors,
    refuse,
    shapes,
    unknown,
)
from ffhqref.zoo.refldm.config import RefLDMConfig

_METADATA = "ffhqref.refldm"


def convert(
    refldm_ckpt: str | Path,
    vqgan_ckpt: str | Path | None,
    destination: str | Path,
    config: RefLDMConfig | None = None,
) -> Path:
    """Write the published pair as one safetensors file, with the config inside and its sha256 beside it.

    The file holds the EMA weights under the U-Net's published names, and the first stage.

    Returns:
        ``destination``.

    Raises:
        WeightsError: see `load_published`.
    """
    config = config or RefLDMConfig()
    weights = load_published(refldm_ckpt, vqgan_ckpt, config)
    files = {"refldm": refldm_ckpt, "refldm-vqgan": vqgan_ckpt}
    sources = {role: sha256_file(path) for role, path in files.items() if path is not None}
    return save_converted(destination, weights, config, sources)


def save_converted(
    destination: str | Path,
    weights: RefLDMWeights,
    config: RefLDMConfig,
    sources: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Write weights as one safetensors file, atomically, and its sha256 as ``<destination>.sha256``.

    Args:
        destination: where to.
        weights: what to write.
        config: the architecture, kept in the file's metadata.
        sources: role to sha256 of what the weights came from, kept in the metadata.
        dtype: precision of the file; networks are float32 again when they are loaded.
    """
    from safetensors.torch import save_file

    destination = Path(destination)
    destination.parent.mkdir(parents=True, exist_ok=True)
    tensors = {UNET + key: value for key, value in weights.unet.items()}
    tensors |= {FIRST_STAGE + key: value for key, value in weights.first_stage.items()}
    tensors = {key: value.to(dtype).contiguous().clone() for key, value in tensors.items()}
    facts = {"config": config.to_tree(), "sources": dict(sources or {}), "unet": "EMA"}
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}.") as folder:
        temporary = Path(folder) / destination.name
        save_file(tensors, temporary, metadata={_METADATA: json.dumps(facts, sort_keys=True)})
        digest = sha256_file(temporary)
        temporary.replace(destination)
        note = Path(folder) / "sha256"
        note.write_text(f"{digest}  {destination.name}\n", encoding="utf-8")
        note.replace(_digest_file(destination))
    return destination


def load_converted(path: str | Path) -> tuple[RefLDMWeights, RefLDMConfig]:
    """Read a file of `convert`, after checking it against the sha256 beside it, where there is one.

    Raises:
        WeightsError: the file is missing, damaged, changed since it was written, or not one of ours.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"no such weight file: {path}")
    if _digest_file(path).is_file():
        expected = _digest_file(path).read_text(encoding="utf-8").split()[:1]
        found = file_sha256(path)
        if expected != [found]:
            raise WeightsError(
                f"{path} has sha256 {found}, but {_digest_file(path).name} says {' '.join(expected)}; delete both "
                "and convert the published files again"
            )
    config = read_config(path)
    tensors = read_tensors(path)
    unet_shapes, stage_shapes = shapes(config)
    expected_keys = [UNET + key for key in unet_shapes] + [FIRST_STAGE + key for key in stage_shapes]
    refuse(path, [key for key in expected_keys if key not in tensors], unknown(tensors, set(expected_keys)))
    unet = {key: tensors[UNET + key] for key in unet_shapes}
    first_stage = {key: tensors[FIRST_STAGE + key] for key in stage_shapes}
    check_shapes(path, unet, unet_shapes)
    check_shapes(path, first_stage, stage_shapes)
    return RefLDMWeights(unet, first_stage), config


def read_config(path: str | Path) -> RefLDMConfig:
    """Return the architecture that a file of `convert` holds, without reading its weights.

    Raises:
        WeightsError: the file is damaged, or not one of ours.
    """
    facts = _metadata(Path(path)).get(_METADATA)
    if facts is None:
        raise WeightsError(f"{path} is no converted ReF-LDM (no '{_METADATA}' in its metadata)")
    return RefLDMConfig.from_tree(json.loads(facts)["config"], where=f"metadata of {path}")


def load_cached(
    refldm_ckpt: str | Path, vqgan_ckpt: str | Path | None, cache_dir: str | Path, config: RefLDMConfig | None = None
) -> tuple[RefLDMWeights, RefLDMConfig]:
    """Convert the published pair into ``cache_dir`` on first use, and read the converted file.

    The converted file is named after the content of its sources and the config, so that another pair never meets it.

    Raises:
        WeightsError: see `load_published` and `load_converted`.
    """
    config = config or RefLDMConfig()
    for path in (refldm_ckpt, vqgan_ckpt):
        if path is not None and not Path(path).is_file():
            raise WeightsError(f"no such weight file: {path}")
    sources = [file_sha256(path) for path in (refldm_ckpt, vqgan_ckpt) if path is not None]
    converted = Path(cache_dir) / f"refldm-{content_key(sources, config.to_tree())[:16]}.safetensors"
    if not converted.is_file():
        convert(refldm_ckpt, vqgan_ckpt, converted, config)
    return load_converted(converted)


def _digest_file(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors: {error}") from None
