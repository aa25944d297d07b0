"""What of a method is open: its code, its weights, its licence, its training data. From what it says of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ffhqref.weights.files import registry

if TYPE_CHECKING:
    from ffhqref.restorers.base import RestorerInfo


def openness(info: RestorerInfo) -> str:
    """Return four words on code, weights, licence and training data; empty for what is no method of its own.

    Weights count as open where every file can be downloaded, by the program or by hand. The licence is the strictest of
    all that a result needs.
    """
    if info.licence.startswith("that of"):
        return ""
    return ", ".join((_code(info), _weights(info), _licence(info), _data(info)))


def _code(info: RestorerInfo) -> str:
    return "code without licence" if "none stated for the code" in info.licence else "code open"


def _weights(info: RestorerInfo) -> str:
    if not info.weights:
        return "weights in the package" if info.trained_on else "no weights"
    known = registry()
    released = all(name in known and known[name].released for name in info.weights)
    return "weights open" if released else "weights not released"


def _licence(info: RestorerInfo) -> str:
    if info.licence.startswith("none stated"):
        return "no licence"
    return "free licence" if info.commercial_use else "non-commercial licence"


def _data(info: RestorerInfo) -> str:
    if not info.trained_on:
        return "no training"
    unknown = any(name.startswith("not stated") for name in info.trained_on)
    return "data partly unknown" if unknown else "data named"
