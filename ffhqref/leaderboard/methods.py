"""What a method of a report is: its description, its setting, and whether that is the published one."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ffhqref.core.errors import FfhqrefError
from ffhqref.core.options import options_of
from ffhqref.restorers import RESTORERS
from ffhqref.restorers.base import Restorer, RestorerInfo
from ffhqref.restorers.cache_key import by_content
from ffhqref.weights.files import registry
from ffhqref.zoo.costs import Cost, known_costs

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class MethodFacts:
    """A method of a report."""

    info: RestorerInfo
    kind: str = ""
    """Name of the restorer in the registry; empty: the method's own name."""
    options: Mapping[str, object] = field(default_factory=dict)
    """Those that change results and have another value than the restorer's default, files by their content."""
    weights: tuple[str, ...] = ()
    """SHA-256 of each weight file, in the restorer's order; what the files are called does not count."""
    code: str = ""
    """Hash of the code that ran, see `ffhqref.restorers.cache_key.code_of`; empty: not recorded."""

    @property
    def setting(self) -> str:
        """Options and weights in words, equal for equal settings of one restorer."""
        words = [f"{name}={_word(value)}" for name, value in sorted(self.options.items())]
        return ", ".join([*words, *(f"weights {sha256[:12]}" for sha256 in self.weights)])

    @property
    def cost(self) -> Cost | None:
        """The counted costs; None for other options than the defaults, or for a method that is not built in."""
        return None if self.options else known_costs().get(self.kind or self.info.name)

    def departure(self) -> str:
        """Return why numbers are not those of the published method, or ""."""
        if self.options:
            return "other setting: " + ", ".join(f"{name}={_word(value)}" for name, value in self.options.items())
        if not self.info.weights:
            return ""
        known = registry()
        hashes = [known[name].sha256 for name in self.info.weights if name in known]
        for sha256 in self.weights:
            if not any(known_hash and sha256.startswith(known_hash) for known_hash in hashes):
                told = "other weights than the published file" if all(hashes) else "weights of no known published hash"
                return f"{told}: {sha256[:12]}"
        return "" if self.weights else "the weights were not recorded"


def read_methods(facts: Mapping[str, Any]) -> dict[str, MethodFacts]:
    """Return the methods of the table ``restorations``.

    Args:
        facts: metadata of the table.
    """
    found = {}
    for name, stored in facts["infos"].items():
        given = facts.get("config", {}).get(name) or {}
        kind = str(given.get("name") or name)
        weights = tuple(facts.get("weights", {}).get(name, {}).values())
        code = str(facts.get("code", {}).get(name, ""))
        found[name] = MethodFacts(_info(stored), kind, changed_options(kind, given), weights, code)
    return found


def changed_options(kind: str, given: Mapping[str, Any]) -> dict[str, object]:
    """Return the options that change results and differ from the restorer's defaults.

    Args:
        kind: name of the restorer; of one that is not installed here, all options but the device count.
        given: options of the method in the config.
    """
    ignored, defaults = {"name", "device"}, {}
    try:
        factory = RESTORERS.get(kind)
        defaults = {name: entry.default for name, entry in options_of(factory).model_fields.items()}
        if isinstance(factory, type) and issubclass(factory, Restorer):
            ignored |= set(factory.cache_ignored_options)
    except FfhqrefError:
        pass
    kept = {name: by_content(value) for name, value in given.items() if name not in ignored}
    return {name: value for name, value in kept.items() if name not in defaults or not _same(value, defaults[name])}


def _same(value: object, default: object) -> bool:
    return json.dumps(value, sort_keys=True, default=str) == json.dumps(default, sort_keys=True, default=str)


def _word(value: object) -> str:
    if isinstance(value, dict) and set(value) == {"sha256"}:
        return str(value["sha256"])[:12]
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


def _info(stored: Mapping[str, Any]) -> RestorerInfo:
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in stored.items()}
    known = {item.name for item in dataclasses.fields(RestorerInfo)}  # a workspace may be of another version
    return RestorerInfo(**{key: value for key, value in fields.items() if key in known})
