"""Options as models: the base class, models derived from constructors, and one-line errors.

A section of the config is a subclass of `Options`. A constructor needs no model of its own: `options_of` derives one
from its typed signature.
"""

from __future__ import annotations

import ast
import functools
import inspect
import sys
import types
import typing
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, TypeVar, Union

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError, create_model
from pydantic_core import ErrorDetails, PydanticUndefined, to_json

from ffhqref.core.errors import ConfigError, did_you_mean

if typing.TYPE_CHECKING:
    from pydantic.fields import FieldInfo

M = TypeVar("M", bound=BaseModel)


class Options(BaseModel):
    """Base of every section of the config and of every set of options: frozen, strict kinds, no unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, populate_by_name=True, protected_namespaces=(), allow_inf_nan=False
    )

    if not typing.TYPE_CHECKING:  # the type checker sees the fields

        def __init__(self, **values: Any) -> None:
            try:
                self.__pydantic_validator__.validate_python(values, self_instance=self)
            except ValidationError as error:
                refuse(type(self), error, values, "")

        __init__.__pydantic_base_init__ = True  # nested models are read as if there were none

    def given(self) -> dict[str, Any]:
        """Return the values that the model was made with, without defaults, as plain ones."""
        return self.model_dump(mode="json", exclude_unset=True, by_alias=True)


class OpenOptions(Options):
    """Options of a constructor that takes any name."""

    model_config = ConfigDict(extra="allow")


def read_options(model: type[M], data: Mapping[str, Any], where: str = "") -> M:
    """Return a model read from a part of a config.

    Args:
        model: of the section.
        data: plain values, as a YAML file holds them.
        where: dotted key of the section, for messages; empty for the whole config.

    Raises:
        ConfigError: an unknown key, a missing one, or a value of another kind; one line.
    """
    try:
        # Read as JSON, strict kinds still take a text for a path and a list for a tuple.
        return model.model_validate_json(to_json(data, inf_nan_mode="constants"))
    except ValidationError as error:
        refuse(model, error, data, where)


def check_options(
    factory: Callable[..., Any], where: str, options: Mapping[str, Any], others: Sequence[str] = ()
) -> None:
    """Refuse options that a constructor does not take, and the lack of those that it needs.

    Args:
        factory: a class or a function; one that tells no signature (some written in C) is not checked.
        where: dotted key of its options, or words such as "restorer 'nlm'", for messages.
        options: by name, values of any kind.
        others: keys that stand beside the options in the config, for suggestions.

    Raises:
        ConfigError: an unknown option, a missing one, or a value of another kind; one line.
    """
    model = options_of(factory)
    try:
        model.model_validate(dict(options))
    except ValidationError as error:
        refuse(model, error, options, where, others)


@functools.cache
def options_of(factory: Callable[..., Any]) -> type[Options]:
    """Return a model of what a constructor takes by name: its parameters with kinds and defaults.

    A class that hands further options (``**options``) on to the class that it is made from has those of that class too.
    Kinds that are no plain values are not judged. A parameter that takes no plain value at all, an object that the
    caller hands over, is no option: its field has ``exclude``.

    Args:
        factory: a class or a function; of one that tells no signature (some written in C) nothing is known.
    """
    try:
        parameters, takes_any = _parameters(factory)
    except ValueError:
        parameters, takes_any = {}, True
    fields: dict[str, Any] = {}
    for name, (parameter, scope) in parameters.items():
        kind = _kind(parameter.annotation, scope)
        handed_over = _leaves(kind) <= {_Foreign, type(None)}
        default = PydanticUndefined if parameter.default is parameter.empty else parameter.default
        kind = Any if _Foreign in _leaves(kind) else kind
        fields[name] = (kind if default is not None else kind | None, Field(default, exclude=handed_over or None))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*shadows an attribute")
        name, base = getattr(factory, "__name__", "Options"), OpenOptions if takes_any else Options
        return create_model(name, __base__=base, __doc__=inspect.getdoc(factory), **fields)


class _Foreign:
    """Stands in an annotation for a kind that no config can hold."""


_PLAIN = (int, float, bool, str, type(None), Path, list, dict, tuple)


def _parameters(factory: Callable[..., Any]) -> tuple[dict[str, tuple[inspect.Parameter, dict[str, Any]]], bool]:
    """Return what a factory takes by name, each with the scope of its annotation, and whether it takes any name."""
    found: dict[str, tuple[inspect.Parameter, dict[str, Any]]] = {}
    kinds = factory.__mro__ if inspect.isclass(factory) else ()
    makers = [vars(kind)["__init__"] for kind in kinds if inspect.isfunction(vars(kind).get("__init__"))]
    makers = [maker for maker in makers if maker.__module__ != "typing"]  # a protocol's says nothing
    for maker in makers or [factory]:
        parameters = list(inspect.signature(maker).parameters.values())[1 if makers else 0 :]
        scope = dict(vars(sys.modules.get(maker.__module__, types)))
        for parameter in parameters:
            if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
                if maker in makers[1:] and parameter.default is parameter.empty:
                    parameter = parameter.replace(default=None)  # the class itself may give it
                found.setdefault(parameter.name, (parameter, scope))
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return found, False
    return found, True


def _kind(annotation: Any, scope: dict[str, Any]) -> Any:
    """Return an annotation in the kinds that a config can hold, `_Foreign` for each part that is none of them."""
    if annotation is inspect.Parameter.empty:
        return Any
    if isinstance(annotation, str):
        parts = _alternatives(ast.parse(annotation, mode="eval").body)
        if len(parts) > 1:
            return Union[tuple(_kind(part, scope) for part in parts)]  # noqa: UP007 (made of a tuple)
        try:
            annotation = typing.get_type_hints(types.SimpleNamespace(__annotations__={"it": annotation}), scope)["it"]
        except (NameError, AttributeError, TypeError):  # imported for the type checker alone
            return _Foreign
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        return Union[tuple(_kind(part, scope) for part in arguments)]  # noqa: UP007
    if annotation is Any or origin is Literal:
        return annotation
    if annotation is Path:
        return Annotated[Path, Strict(False)]
    plain = origin or annotation
    if plain in (Sequence, tuple, list) or (isinstance(plain, type) and issubclass(plain, (list, tuple))):
        return Annotated[tuple[Any, ...], Strict(False)]
    if plain in (Mapping, dict):
        return Mapping[str, Any]
    return plain if plain in _PLAIN else _Foreign


def _alternatives(node: ast.expr) -> list[str]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _alternatives(node.left) + _alternatives(node.right)
    return [ast.unparse(node)]


def _leaves(kind: Any) -> set[Any]:
    return set(typing.get_args(kind)) if typing.get_origin(kind) in (Union, types.UnionType) else {kind}


def refuse(
    model: type[BaseModel], error: ValidationError, data: Any, where: str, others: Sequence[str] = ()
) -> NoReturn:
    """Raise the one-line form of a validation error: what, where, expected, and the nearest right name.

    Args:
        model: that was to be read.
        error: the first of its faults is told.
        data: what it was read from.
        where: dotted key of the data, or words.
        others: keys that stand beside those of the model in the config.

    Raises:
        ConfigError: always.
    """
    first = error.errors(include_url=False)[0]
    raise ConfigError(_explain(model, first, data, where, others)) from None


def _explain(model: type[BaseModel], fault: ErrorDetails, data: Any, where: str, others: Sequence[str]) -> str:
    path = _path(fault["loc"], data)
    key = _dotted(where, path)
    if fault["type"] == "extra_forbidden":
        known = [*_options_at(model, path[:-1]), *(others if len(path) == 1 else ())]
        told = f"Its options: {', '.join(known) or 'none'}" if path[:-1] or where else "All keys: ffhqref run --cfg job"
        unknown = f"{where}: unknown option '{path[-1]}'" if " " in where else f"unknown key '{key}'"
        return f"{unknown}.{did_you_mean(str(path[-1]), known)} {told}"
    if fault["type"] == "missing" and isinstance(fault["loc"][-1], str):
        key = _dotted(where, [*path, fault["loc"][-1]])
        return f"{key} is missing; its options: {', '.join(_options_at(model, path))}"
    value = functools.reduce(lambda held, name: held[name], path, data)
    raised = fault.get("ctx", {}).get("error")
    if raised is not None:  # by a validator of the model
        told = key if isinstance(value, Mapping) else f"{key}={told_value(value)}"
        return f"{told}: {raised}" if key else str(raised)
    kind, field = _field_at(model, path)
    expected = told_kind(kind, field.metadata if field else ()).format(key=key) or fault["msg"]
    nearest = did_you_mean(value, _literals(kind)) if isinstance(value, str) else ""
    return f"{key}={told_value(value)}: expected {expected}{nearest and '.'}{nearest}"


def _path(location: Sequence[str | int], data: Any) -> list[str | int]:
    """Return the part of an error's location that is a way into the data; the rest names branches of a union."""
    path: list[str | int] = []
    for step in location:
        if isinstance(data, Mapping) and step in data:
            data = data[str(step)]
        elif isinstance(data, (list, tuple)) and isinstance(step, int) and step < len(data):
            data = data[step]
        else:
            continue
        path.append(step)
    return path


def _dotted(where: str, path: Sequence[str | int]) -> str:
    """Return ``where.a.b[0]``; words, which hold a space, are set off by a colon."""
    key = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")
    if not where or not key:
        return where or key
    return f"{where}: {key}" if " " in where else f"{where}.{key}"


def _field_at(model: type[BaseModel], path: Sequence[str | int]) -> tuple[Any, FieldInfo | None]:
    """Return the annotation that a value has to meet, and its field where it is one."""
    kind: Any = model
    field: FieldInfo | None = None
    for step in path:
        inner = model_in(kind)
        fields = {} if inner is None else {named(*item): item[1] for item in inner.model_fields.items()}
        if step in fields:
            field = fields[str(step)]
            kind = field.annotation
        else:
            arguments = [item for part in alternatives(kind) for item in typing.get_args(part) if item is not Ellipsis]
            field, kind = None, arguments[-1] if arguments else Any
    return kind, field


def kind_at(model: type[BaseModel], path: Sequence[str | int]) -> Any:
    """Return the annotation that a value in a model has to meet, `Any` where none is known."""
    return _field_at(model, path)[0]


def is_text(kind: Any) -> bool:
    """Return whether an annotation takes texts and no numbers: names and paths.

    >>> is_text(str | None), is_text(Path), is_text(int | Literal["all"]), is_text(Literal[1, 2]), is_text(Any)
    (True, True, False, False, False)
    """
    parts = alternatives(kind)
    words = [word for part in parts if typing.get_origin(part) is Literal for word in typing.get_args(part)]
    if {int, float, bool} & set(parts) or not all(isinstance(word, str) for word in words):
        return False
    return bool(words) or any(part in (str, Path) for part in parts)


def items_are_text(kind: Any) -> bool:
    """Return whether an annotation takes lists of texts.

    >>> items_are_text(tuple[str, ...] | None), items_are_text(tuple[int, int])
    (True, False)
    """
    lists = [part for part in alternatives(kind) if typing.get_origin(part) in (tuple, list, Sequence)]
    return bool(lists) and all(is_text(item) for part in lists for item in typing.get_args(part)[:1])


def dotted_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Return every key of a model and of the models in it."""
    keys: list[str] = []
    for name, field in model.model_fields.items():
        key = f"{prefix}{named(name, field)}"
        inner = model_in(field.annotation)
        keys += [key, *(dotted_keys(inner, f"{key}.") if inner else [])]
    return keys


def alternatives(kind: Any) -> tuple[Any, ...]:
    """Return the alternatives of a union, without what annotates them."""
    if typing.get_origin(kind) is Annotated:
        return alternatives(typing.get_args(kind)[0])
    if typing.get_origin(kind) in (Union, types.UnionType):
        return tuple(part for alternative in typing.get_args(kind) for part in alternatives(alternative))
    return (kind,)


def model_in(kind: Any) -> type[BaseModel] | None:
    """Return the model among the alternatives of an annotation, None without one."""
    return next((part for part in alternatives(kind) if inspect.isclass(part) and issubclass(part, BaseModel)), None)


def _options_at(model: type[BaseModel], path: Sequence[str | int]) -> list[str]:
    inner = model_in(_field_at(model, path)[0])
    return [] if inner is None else [named(*item) for item in inner.model_fields.items() if not item[1].exclude]


def named(name: str, field: FieldInfo) -> str:
    """Return what a field is called in a config."""
    return field.alias or name


def _literals(kind: Any) -> list[str]:
    return [
        str(word) for part in alternatives(kind) if typing.get_origin(part) is Literal for word in typing.get_args(part)
    ]


_WORDS: Mapping[Any, str] = {
    bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path", type(None): "null",
    list: "a list, [first,second]", tuple: "a list, [first,second]", set: "a list, [first,second]",
    Sequence: "a list, [first,second]", Mapping: "options, {key}.KEY=VALUE", dict: "options, {key}.KEY=VALUE",
}  # fmt: skip


def told_kind(kind: Any, limits: Sequence[Any] = ()) -> str:
    """Return in words what values an annotation takes, empty for any; ``{key}`` stands for the dotted key.

    >>> told_kind(int | None), told_kind(Literal["worst", "excluded"])
    ('a whole number or null', 'worst or excluded')
    """
    words: dict[str, None] = {}
    parts = alternatives(kind)
    for part in parts:
        origin = typing.get_origin(part) or part
        if origin is int and float in parts:
            continue
        if origin is Literal:
            words |= {told_value(word): None for word in typing.get_args(part)}
        elif inspect.isclass(origin) and issubclass(origin, BaseModel):
            words[_WORDS[dict]] = None
        elif origin is not str or Path not in parts:
            words[_WORDS.get(origin, "")] = None
    told = list(words)
    if "" in words:
        return ""
    told = [word for word in told if word != "null"] + ["null"] * ("null" in told)
    told[0] += _told_limits(limits)
    return told[0] if len(told) == 1 else f"{', '.join(told[:-1])} or {told[-1]}"


def told_value(value: Any) -> str:
    """Return a value as a command line has it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _told_limits(limits: Sequence[Any]) -> str:
    least, most = _limit(limits, "ge"), _limit(limits, "le")
    above, below = _limit(limits, "gt"), _limit(limits, "lt")
    if least is not None and most is not None:
        return f" from {least} to {most}"
    told = {"of at least": least, "of at most": most, "above": above, "below": below}
    return "".join(f" {words} {limit}" for words, limit in told.items() if limit is not None)


def _limit(limits: Sequence[Any], name: str) -> Any:
    return next((getattr(item, name) for item in limits if hasattr(item, name)), None)
