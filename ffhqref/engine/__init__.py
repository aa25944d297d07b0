"""How work is spread, and resumed."""

from ffhqref.engine.base import Engine, Row, Stage
from ffhqref.engine.journal import Journal
from ffhqref.engine.local import LocalEngine
from ffhqref.engine.run import run_stage

__all__ = ["Engine", "Journal", "LocalEngine", "Row", "Stage", "run_stage"]
