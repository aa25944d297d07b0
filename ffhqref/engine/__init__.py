"""How work is spread, and resumed."""

from collections.abc import Callable

from ffhqref.core.registry import Registry
from ffhqref.engine.base import Engine, Results, Row, Stage
from ffhqref.engine.cluster import RayEngine
from ffhqref.engine.journal import Journal
from ffhqref.engine.local import LocalEngine
from ffhqref.engine.run import rehearse_stage, run_stage

__all__ = [
    "ENGINES",
    "Engine",
    "Journal",
    "LocalEngine",
    "RayEngine",
    "Results",
    "Row",
    "Stage",
    "rehearse_stage",
    "run_stage",
]

ENGINES: Registry[Callable[..., Engine]] = Registry(
    "engine",
    {"local": "ffhqref.engine.local:LocalEngine", "ray": "ffhqref.engine.cluster:RayEngine"},
    "ffhqref.engines",
)
"""Every engine by name; other packages add theirs through the entry-point group ``ffhqref.engines``."""
