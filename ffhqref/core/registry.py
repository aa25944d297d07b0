"""One small generic registry: lazy "module:attribute" entries, entry points, did-you-mean errors."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath
from typing import Any, Generic, TypeVar, cast

from ffhqref.core.errors import ConfigError, DependencyError, did_you_mean, one_line

T = TypeVar("T")
R = TypeVar("R")


class Registry(Generic[T]):
    """Names of one kind of thing, imported only when asked for.

    Args:
        kind: what is registered, in the words of an error message ("restorer").
        entries: name to ``"module:attribute"``.
        entry_point_group: group through which other packages add names. A built-in name cannot be replaced.

    The object is immutable after construction, apart from reading the entry points once on first use.
    """

    def __init__(self, kind: str, entries: Mapping[str, str], entry_point_group: str | None = None) -> None:
        self.kind = kind
        self._builtin = dict(entries)
        self._group = entry_point_group
        self._plugins: dict[str, importlib.metadata.EntryPoint] | None = None

    def _entry_points(self) -> dict[str, importlib.metadata.EntryPoint]:
        if self._plugins is None:
            found: dict[str, importlib.metadata.EntryPoint] = {}
            if self._group:
                for point in importlib.metadata.entry_points(group=self._group):
                    if point.name in self._builtin:
                        raise ConfigError(
                            f"{self.kind} '{point.name}' from entry point '{point.value}' has the name of a "
                            f"built-in one; rename it in that package's '{self._group}' entry points"
                        )
                    found[point.name] = point
            self._plugins = found
        return self._plugins

    def names(self) -> list[str]:
        """Return all known names, built-in ones first, each group sorted."""
        return sorted(self._builtin) + sorted(self._entry_points())

    def plugin_names(self) -> list[str]:
        """Return the names that come from other packages, sorted."""
        return sorted(self._entry_points())

    def __contains__(self, name: object) -> bool:
        return name in self._builtin or name in self._entry_points()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def get(self, name: str) -> T:
        """Import and return the object registered as ``name``.

        Raises:
            ConfigError: no such name (with the nearest one), or the plug-in does not import.
            DependencyError: a package that the built-in entry needs is not installed.
        """
        if name in self._builtin:
            return cast("T", load_attribute(self._builtin[name], f"{self.kind} '{name}'"))
        points = self._entry_points()
        if name in points:
            try:
                return cast("T", points[name].load())
            except Exception as error:  # a plug-in may fail in any way
                raise ConfigError(
                    f"{self.kind} '{name}' (entry point '{points[name].value}') does not import: {one_line(error)}"
                ) from error
        raise ConfigError(
            f"unknown {self.kind} '{name}'.{did_you_mean(name, self.names())} Known: {', '.join(self.names())}"
        )

    def make(self: Registry[Callable[..., R]], name: str, **options: Any) -> R:
        """Return what the factory registered as ``name`` makes of the options.

        Raises:
            ConfigError: no such name, or an option that the factory does not know or misses.
            DependencyError: see `get`.
        """
        factory = self.get(name)
        check_options(factory, f"{self.kind} '{name}'", options)
        return factory(**options)


def check_options(factory: Callable[..., Any], what: str, options: Mapping[str, Any]) -> None:
    """Refuse options that a factory does not take, and the lack of those that it needs.

    Args:
        factory: a class or a function; one that tells no signature (some written in C) is not checked.
        what: it is, for the message.
        options: by name.

    Raises:
        ConfigError: with the names of its options.
    """
    try:
        signature = inspect.signature(factory)
    except ValueError:
        return
    parameters, takes_any = constructor_options(factory)
    for name in options:
        if name not in parameters and not takes_any:
            known = ", ".join(parameters) or "none"
            raise ConfigError(f"{what}: got an unexpected keyword argument '{name}'; its options: {known}")
    try:
        signature.bind(**options)
    except TypeError as error:
        known = ", ".join(signature.parameters) or "none"
        raise ConfigError(f"{what}: {error}; its options: {known}") from None
    if getattr(factory, "__module__", "").partition(".")[0] != "ffhqref":
        return  # annotations of others may say less than they take
    for name, value in options.items():
        expected = _expected(parameters[name].annotation, value) if name in parameters else None
        if expected:
            raise ConfigError(f"{what}: {name}={value}: expected {expected}")


def constructor_options(factory: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """Return what a factory takes by name, and whether it takes any name.

    Of a class that hands further options on to the class that it is made from, those of that class too.
    """
    found: dict[str, inspect.Parameter] = {}
    kinds = factory.__mro__ if inspect.isclass(factory) else ()
    makers = [vars(kind)["__init__"] for kind in kinds if "__init__" in vars(kind)]
    for maker in makers or [factory]:
        parameters = list(inspect.signature(maker).parameters.values())[1 if makers else 0 :]
        rest = [parameter for parameter in parameters if parameter.kind is parameter.VAR_KEYWORD]
        named = [parameter for parameter in parameters if parameter.kind not in _VARIABLE]
        found |= {parameter.name: parameter for parameter in named if parameter.name not in found}
        if not rest:
            return found, False
    return found, True


_VARIABLE = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)

_WORDS = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text", "Path": "a path",
    "None": "null", "Mapping": "options", "dict": "options", "Sequence": "a list", "list": "a list", "tuple": "a list",
}  # fmt: skip


def _expected(annotation: Any, value: Any) -> str | None:
    """Return in words what an annotation of plain types asks for where the value is something else; None: it is right.

    Annotations that name anything else are not judged.
    """
    if not isinstance(annotation, str):
        return None
    kinds = [part.strip().partition("[")[0] for part in annotation.split("|")]
    if not set(kinds) <= set(_WORDS):
        return None
    if any(_is(value, kind, path="Path" in kinds) for kind in kinds):
        return None
    words = list(dict.fromkeys(_WORDS[kind] for kind in kinds if not (kind == "str" and "Path" in kinds)))
    return " or ".join(words)


def _is(value: Any, kind: str, *, path: bool) -> bool:
    """Return whether a value of a config is of a kind; a number is a text too, such as a release, but never a path."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return {
        "None": value is None,
        "bool": isinstance(value, bool),
        "int": isinstance(value, int) and not isinstance(value, bool),
        "float": number,
        "str": isinstance(value, str) or (number and not path),
        "Path": isinstance(value, PurePath),
        "Mapping": isinstance(value, Mapping),
        "dict": isinstance(value, Mapping),
    }.get(kind, isinstance(value, (list, tuple)))


def load_attribute(target: str, what: str) -> Any:
    """Import ``"module:attribute"`` (a dot before the attribute is accepted too).

    Raises:
        ConfigError: the module or the attribute does not exist.
        DependencyError: the module exists and needs a package that is not installed.
    """
    module_name, _, attribute = target.partition(":") if ":" in target else target.rpartition(".")
    if not module_name:
        raise ConfigError(f"{what}: '{target}' names no module: package.module.Class")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name == missing or module_name.startswith(missing + "."):
            raise ConfigError(f"{what}: no module '{missing}' (from '{target}')") from error
        raise DependencyError(
            f"{what} needs the package '{missing}', which is not installed: pip install '{missing}' (or 'ffhqref[all]')"
        ) from error
    try:
        return getattr(module, attribute)
    except AttributeError as error:
        raise ConfigError(f"{what}: module '{module_name}' has no '{attribute}'") from error
