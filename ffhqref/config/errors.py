"""Errors of Hydra and OmegaConf, told in one line: what is wrong, where, and the nearest right name."""

from __future__ import annotations

from collections.abc import Sequence

from ffhqref.config import source
from ffhqref.config.run import RunConfig
from ffhqref.core.errors import did_you_mean
from ffhqref.core.options import dotted_keys


def explain(error: Exception, overrides: Sequence[str] = ()) -> str:
    """Return the explanation of an error that composing a config raised.

    Args:
        error: from Hydra or OmegaConf.
        overrides: the arguments of the command line, to name the one that is wrong.
    """
    missing = getattr(error, "missing_cfg_file", None)
    if missing:
        group, _, name = str(missing).rpartition("/")
        if name.startswith("submitit_"):
            return f"{group}={name.removeprefix('submitit_')} needs the Submitit launcher: pip install 'ffhqref[slurm]'"
        known = source.names(group)
        return f"unknown {group} '{name}'.{did_you_mean(name, known)} Known: {', '.join(known)}"
    key = getattr(error.__cause__, "full_key", None)
    if key:
        return _unknown_key(str(key), overrides)
    return f"config: {' '.join(str(error).splitlines()[0].split())}"


def explain_launcher(error: Exception) -> str | None:
    """Return the explanation of what went wrong with the jobs of a sweep; None where the error is not Submitit's."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if isinstance(error, RuntimeError) and 'detect "srun"' in first:
        return "hydra/launcher=slurm: no Slurm here (srun is not found); run the command on a login node of the cluster"
    if type(error).__module__.partition(".")[0] != "submitit":
        return None
    return f"a job of the sweep came to no end: {first}; finished work is kept, the same command goes on from there"


def _unknown_key(key: str, overrides: Sequence[str]) -> str:
    typed = (override.partition("=")[0] for override in overrides if not override.startswith(("-", "+", "~")))
    key = next((name for name in typed if name == key or name.startswith(f"{key}.")), key)
    group, _, rest = key.partition(".")
    part = rest.partition(".")[0]
    if group in source.MANY and part in source.names(group):
        return f"{key}: {group} '{part}' is not chosen; name it too: {group}=[{part}], with the others that you want"
    known = [f"{group}.{name}" for name in source.names(group)] if group in source.MANY else dotted_keys(RunConfig)
    return f"unknown key '{key}'.{did_you_mean(key, known)} All keys: ffhqref run --cfg job"
