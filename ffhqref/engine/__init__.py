"""How work is spread, and resumed."""

from ffhqref.engine.base import Engine, Results, Row, Stage
from ffhqref.engine.cluster import RayEngine
from ffhqref.engine.journal import Journal
from ffhqref.engine.local import LocalEngine
from ffhqref.engine.run import run_stage

__all__ = ["Engine", "Journal", "LocalEngine", "RayEngine", "Results", "Row", "Stage", "run_stage"]
