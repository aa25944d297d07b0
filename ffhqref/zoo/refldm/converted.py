"""The one safetensors file that is made of the published pair of checkpoints, and read from then on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch

from ffhqref.core.errors import WeightsError, one_line
from ffhqref.core.files import read_regular, write_atomic
from ffhqref.core.hashing import content_key, sha256_bytes
from ffhqref.core.parsing import parsing
from ffhqref.weights.files import Weights, file_sha256
from ffhqref.weights.tensors import holding, opened
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
    named = (("refldm", refldm_ckpt), ("refldm-vqgan", vqgan_ckpt))
    files = [_hashed(role, Path(path)) for role, path in named if path is not None]
    with holding(files):
        weights = load_published(refldm_ckpt, vqgan_ckpt, config)
    return save_converted(destination, weights, config, {file.name: file.sha256 for file in files})


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
    from safetensors.torch import save

    destination = Path(destination)
    tensors = {UNET + key: value for key, value in weights.unet.items()}
    tensors |= {FIRST_STAGE + key: value for key, value in weights.first_stage.items()}
    tensors = {key: value.to(dtype).contiguous().clone() for key, value in tensors.items()}
    facts = {"config": config.to_tree(), "sources": dict(sources or {}), "unet": "EMA"}
    data = save(tensors, metadata={_METADATA: json.dumps(facts, sort_keys=True)})
    _digest_file(destination).unlink(missing_ok=True)  # between both writes there is none rather than a wrong one
    write_atomic(destination, data, lasting=True)
    write_atomic(_digest_file(destination), f"{sha256_bytes(data)}  {destination.name}\n".encode(), lasting=True)
    return destination


def load_converted(path: str | Path) -> tuple[RefLDMWeights, RefLDMConfig]:
    """Read a file of `convert`, after checking it against the sha256 beside it, where there is one.

    Raises:
        WeightsError: the file is missing, damaged, changed since it was written, or not one of ours.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"no such weight file: {path}")
    found = _hashed("refldm", path)
    if _digest_file(path).is_file():
        with parsing(_digest_file(path), WeightsError, "delete it and convert the published files again"):
            expected = read_regular(_digest_file(path)).decode().split()[:1]
        if expected != [found.sha256]:
            raise WeightsError(
                f"{path} has sha256 {found.sha256}, but {_digest_file(path).name} says {' '.join(expected)}; delete "
                "both and convert the published files again"
            )
    with holding([found]):
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
    files = [_hashed("refldm", Path(path)) for path in (refldm_ckpt, vqgan_ckpt) if path is not None]
    made_of = content_key([file.sha256 for file in files], config.to_tree())
    converted = Path(cache_dir) / f"refldm-{made_of[:16]}.safetensors"
    if not converted.is_file():
        with holding(files):
            convert(refldm_ckpt, vqgan_ckpt, converted, config)
    return load_converted(converted)


def _hashed(name: str, path: Path) -> Weights:
    return Weights(name, path.name, path, file_sha256(path), None)


def _digest_file(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def _metadata(path: Path) -> dict[str, str]:
    from safetensors import safe_open

    try:
        with opened(path) as name, safe_open(name, framework="pt") as content:
            return dict(content.metadata() or {})
    except WeightsError:
        raise
    except Exception as error:  # noqa: BLE001 - damaged files raise anything
        raise WeightsError(f"{path} cannot be read as safetensors: {one_line(error)}") from None
