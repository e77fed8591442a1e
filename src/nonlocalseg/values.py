"""Values: frozen dataclasses whose fields are the options. A field is its default, check, help, JSON and command line.

    @value
    class View:
        crop: Size | None = None
        "Height and width of the windows in pixels."

pydantic checks and converts what a field is given (a number as text, a list for a tuple), on the command line, in YAML
and JSON and in Python alike; every mistake is a ValueError of one line that names the field.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, TypeGuard, TypeVar, cast, dataclass_transform

from annotated_types import Ge, Gt, Le
from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass
from pydantic.fields import FieldInfo

from nonlocalseg.choices import hint, pick

T = TypeVar("T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
def value(cls: type[T]) -> type[T]:
    """A frozen, checked dataclass; arguments are keywords. Its constructor raises ValueError in one line."""
    config = ConfigDict(extra="forbid", use_attribute_docstrings=True, arbitrary_types_allowed=True)
    checked: Any = checked_dataclass(frozen=True, kw_only=True, config=config)(cls)
    plain = checked.__init__

    @functools.wraps(plain)
    def construct(self: Any, *args: Any, **given: Any) -> None:
        try:
            plain(self, *args, **given)
        except ValidationError as error:
            raise ValueError(one_line(error, checked)) from None

    checked.__init__ = construct
    return checked


# --- Kinds of fields --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Positional:
    """Marks a field that the command line takes without dashes."""


@dataclass(frozen=True)
class Hidden:
    """Marks a field that is no option of the command line."""


@dataclass(frozen=True)
class Metavar:
    """How the help calls a field's value."""

    text: str


def pair(given: object) -> object:
    """One number stands for both of a pair; text becomes whole numbers where it can, so that 512 stays 512."""
    items = list(given) if isinstance(given, (list, tuple)) else [given]
    items = [_number(item) for item in items]
    return tuple(items * 2 if len(items) == 1 else items)


def _number(given: object) -> object:
    if not isinstance(given, str):
        return given
    try:
        return int(given)
    except ValueError:
        pass
    try:
        return float(given)
    except ValueError:
        return given


def _whole(given: object) -> object:
    """1e3 as 1000; no truth values."""
    if isinstance(given, bool):
        raise ValueError(f"{given} is not a whole number")
    if isinstance(given, str) and isinstance(found := _number(given), float) and found.is_integer():
        return int(found)
    return given


def _several(given: object) -> object:
    """One text stands for a list of it."""
    return (given,) if isinstance(given, str) else given


Whole = Annotated[int, BeforeValidator(_whole)]
Count = Annotated[int, BeforeValidator(_whole), Ge(1)]
"""A whole number from 1 up."""
Natural = Annotated[int, BeforeValidator(_whole), Ge(0)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Side = Annotated[int, BeforeValidator(_whole), Ge(16), Le(32_768)]
"""A length in pixels that a network can see and a memory hold."""
Size = Annotated[tuple[Count, Count], BeforeValidator(pair), Metavar("H W")]
"""Height and width in pixels; one number for both."""
Precision = Literal["32", "bf16", "16"]
"""Single, or automatic mixed precision."""
Several = BeforeValidator(_several)
"""Marks a list of which one may be given as it is."""
Names = Annotated[tuple[str, ...], Several]


# --- What the fields of a value are -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Option:
    """One field of a value. kind: its type with its checks. help: one sentence, the field's docstring."""

    name: str
    kind: Any
    marks: tuple[object, ...]
    default: object
    required: bool
    help: str

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    def marked(self, mark: type[T]) -> T | None:
        return next((item for item in self.marks if isinstance(item, mark)), None)

    def read(self, given: object) -> Any:
        """`given` checked and converted; a ValueError begins with the option as the command line spells it."""
        try:
            return TypeAdapter(self.kind).validate_python(given)
        except ValidationError as error:
            shown = self.name.upper() if self.marked(Positional) else self.flag
            raise ValueError(f"{shown}: {_reason(error.errors()[0], given)}") from None


@functools.cache
def options_of(cls: type) -> dict[str, Option]:
    """The fields of a value, in order, by name."""
    found: dict[str, FieldInfo] = cls.__pydantic_fields__  # pyright: ignore[reportAttributeAccessIssue]  # pydantic's own, documented
    texts: dict[str, str | None] = {}  # pydantic reads the docstrings of a class alone, not of those it inherits from
    for base in reversed(cls.__mro__):
        texts |= {
            n: info.description for n, info in getattr(base, "__pydantic_fields__", {}).items() if info.description
        }
    return {field.name: _option(field.name, found[field.name], texts.get(field.name)) for field in fields(cls)}


def _option(name: str, info: FieldInfo, text: str | None) -> Option:
    kind = Annotated[info.annotation, *info.metadata] if info.metadata else info.annotation
    default = None if info.is_required() else info.get_default(call_default_factory=True, validated_data={})
    help_text = " ".join((text or "").split())
    return Option(name, kind, tuple(info.metadata), default, info.is_required(), help_text)


def names_of(cls: type) -> tuple[str, ...]:
    """The names of the fields of a value."""
    return tuple(options_of(cls))


def is_mapping(given: object) -> TypeGuard[Mapping[Any, Any]]:
    """Whether it has keys with values: of any type, which isinstance alone leaves unknown to type checkers."""
    return isinstance(given, Mapping)


def is_row(given: object) -> TypeGuard[list[Any] | tuple[Any, ...]]:
    """Whether it is a list or a tuple, of any type, likewise."""
    return isinstance(given, (list, tuple))


def changed(start: T, changes: Mapping[str, object], what: str = "option") -> T:
    """`start` with some fields replaced, checked again; ValueError, nearest named, for a field that it lacks."""
    for name in changes:
        pick(what, name, names_of(type(start)))
    return replace(cast(Any, start), **changes) if changes else start


def plain(given: object) -> Any:
    """A value, or what is in one, as JSON and YAML hold it: tuples as lists."""
    return TypeAdapter(type(given)).dump_python(given, mode="json")


def from_plain(cls: Callable[..., T], content: object, where: object) -> T:
    """The value that `plain` wrote, from the file `where`; ValueError that names the file and the field."""
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise ValueError(f"{where}: expected names and values, found {type(content).__name__}")
    try:
        return cls(**{str(name): item for name, item in content.items()})
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


# --- Mistakes in one line ---------------------------------------------------------------------------------------


def one_line(error: ValidationError, cls: type) -> str:
    """The first mistake: the field, what is wrong with it, and how to mend it."""
    first: Mapping[str, Any] = error.errors()[0]
    if not first["loc"]:
        return _reason(first, None)
    name = str(first["loc"][0])
    if len(first["loc"]) > 1 and first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"{name}: unknown option {str(first['loc'][-1])!r}"
    if first["type"] in ("unexpected_keyword_argument", "extra_forbidden"):
        return f"unknown option {name!r}: {hint(name, names_of(cls))}"
    if len(first["loc"]) == 1 and first["type"] in ("missing", "missing_keyword_only_argument"):
        return f"{name} is missing"
    return f"{name}: {_reason(first, first['input'])}"


def _reason(first: Mapping[str, Any], given: object) -> str:
    kind, context, found = str(first["type"]), first.get("ctx", {}), first["input"]
    if kind in ("value_error", "assertion_error"):
        return str(context["error"])
    if kind == "literal_error":
        words = [word.strip().strip("'") for word in str(context["expected"]).replace(" or ", ", ").split(",")]
        return f"{found!r} is unknown; {hint(str(found), words)}"
    if kind.startswith("greater_than"):
        edge = format(context.get("ge", context.get("gt")), "g")
        return f"{found}; give {f'{edge} or more' if kind.endswith('equal') else f'more than {edge}'}"
    if kind.startswith("less_than"):
        edge = format(context.get("le", context.get("lt")), "g")
        return f"{found}; give {f'{edge} or less' if kind.endswith('equal') else f'less than {edge}'}"
    if kind in ("missing", "too_short", "too_long") and isinstance(given, (list, tuple)):
        index = first["loc"][-1] if first["loc"] else 0
        wanted = context.get("max_length", context.get("min_length", index + 1 if isinstance(index, int) else 1))
        return f"{' '.join(map(str, given))} is {len(given)} value{'s' if len(given) > 1 else ''}; give {wanted}"
    kinds = {"int": "a whole number", "float": "a number", "bool": "true or false", "string": "a text"}
    kinds |= {
        "tuple": "a list",
        "dict": "names with values",
        "mapping": "names with values",
        "finite": "a finite number",
    }
    return f"{found!r} is not {kinds.get(kind.split('_')[0], first['msg'])}"
