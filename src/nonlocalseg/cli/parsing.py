"""From a typed function to a verb of the command line: its parameters are options, its docstring is the help."""

from __future__ import annotations

import inspect
import re
import types
import typing
from argparse import ArgumentError, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

PROGRAM = "nonlocalseg"
_METAVARS = {
    "root": "DIR",
    "out": "PATH",
    "resume": "RUN",
    "init_from": "MODEL",
    "backbone_weights": "FILE",
    "classes_file": "FILE",
    "json": "FILE",
    "data": "NAME",
    "model": "MODEL",
    "backbone": "NAME",
    "crop": ("H", "W"),
    "stride": ("H", "W"),
    "size": ("H", "W"),
    "scale": ("LOW", "HIGH"),
    "pixel": ("X", "Y"),
    "truth": "FILE",
}
_KINDS = {int: ("N", "a whole number"), float: ("X", "a number"), str: ("TEXT", "a text")}


@dataclass(frozen=True)
class Verb:
    """The function `run` as a verb; it returns the exit code, or None for 0.

    positional: parameters that are written without dashes, in this order. like: returns the library function whose
    parameters, but for those in `without`, are options as well and reach `run` as further keywords; it is called only
    when the verb is used, so that it may import what is slow to import. The docstring's paragraphs up to "Args:"
    describe the verb, "Examples:" ends its help.
    """

    run: Callable[..., int | None]
    positional: tuple[str, ...] = ()
    like: Callable[[], Callable[..., Any]] | None = None
    without: tuple[str, ...] = ("progress",)

    @property
    def summary(self) -> str:
        return (self.run.__doc__ or "").strip().splitlines()[0]


@dataclass(frozen=True)
class Option:
    """One parameter of a function, as the command line needs it."""

    name: str
    kind: Any  # int, float, str, bool, dict, or a tuple of allowed words
    several: bool  # takes more than one value
    single: bool  # one value is passed as it is, not as a tuple
    pair: bool  # takes two values, and one stands for both
    default: Any
    help: str

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def required(self) -> bool:
        return self.default is inspect.Parameter.empty

    def value(self, given: Any) -> Any:
        """What the function gets for the parsed value."""
        if self.kind is dict and given is not None:
            return dict(_key_and_value(self.flag, text) for text in given)
        if not self.several or not isinstance(given, list):
            return given
        if (self.single or self.pair) and len(given) > 2:
            raise ValueError(f"{self.flag}: {len(given)} values; give one or two")
        if len(given) == 1 and (self.single or self.pair):
            return given[0] if self.single else (given[0], given[0])
        return tuple(given)


def parse(name: str, verb: Verb, arguments: Sequence[str]) -> dict[str, Any] | None:
    """The keywords for `verb.run`; None where help was asked for and printed. Raises ValueError for mistakes."""
    options = options_of(verb)
    parser = make_parser(name, verb, options)
    if {"-h", "--help"} & set(arguments):
        parser.print_help()
        return None
    words = [_dashed(word) for word in arguments]
    _check_flags(name, words, [flag for option in options for flag in _flags(option, verb)])
    try:
        found = parser.parse_args(words)
    except ArgumentError as error:
        raise ValueError(_plain(str(error), name, {option.name: option for option in options}, verb)) from None
    return {option.name: option.value(found[option.name]) for option in options}


def make_parser(name: str, verb: Verb, options: Sequence[Option]) -> ArgumentParser:
    """The parser of one verb, with the help text of its docstring."""
    from jsonargparse import ActionYesNo, ArgumentParser

    description, examples = _described(verb.run)
    parser = ArgumentParser(
        prog=f"{PROGRAM} {name}",
        usage=_usage(name, verb, options),
        description=description,
        epilog=examples + "\n\n--debug, with any verb, shows where an error was raised.",
        formatter_class=RawDescriptionHelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    for option in options:
        arguments: dict[str, Any] = {"help": option.help, "type": _parser_type(option)}
        if option.several or option.kind is dict:
            arguments["nargs"] = "+"
        if option.name in verb.positional:
            if not option.required:
                arguments |= {"nargs": "*" if option.several else "?", "default": option.default}
            parser.add_argument(option.name, metavar=option.name.upper(), **arguments)
        elif option.kind is bool:
            action: Any = "store_true" if option.default is False else ActionYesNo(no_prefix="no-")
            parser.add_argument(option.flag, default=option.default, help=option.help, action=action)
        else:
            default = {"required": True} if option.required else {"default": _as_list(option.default)}
            parser.add_argument(option.flag, metavar=_metavar(option), **default, **arguments)
    return parser


def _usage(name: str, verb: Verb, options: Sequence[Option]) -> str:
    """In one line: what must be given; the options are explained below it."""
    words = [PROGRAM, name]
    for option in options:
        word = option.name.upper()
        if option.name in verb.positional:
            word += " ..." if option.several else ""
            words.append(word if option.required else f"[{word}]")
        elif option.required:
            words.append(f"{option.flag} {_metavar(option)}")
    return " ".join([*words, "[options]"])


def _metavar(option: Option) -> str | tuple[str, ...]:
    if isinstance(option.kind, tuple):
        return "{" + ",".join(option.kind) + "}"
    name = _METAVARS.get(option.name, _KINDS.get(option.kind, ("KEY=VALUE",))[0])
    return "N" if isinstance(name, tuple) and not option.several else name


def options_of(verb: Verb) -> list[Option]:
    """The positional ones, then the other parameters of the function that the verb is like, then the verb's own."""
    own = _parameters(verb.run)
    hidden = {option.name for option in own} | set(verb.without)
    others = [] if verb.like is None else [option for option in _parameters(verb.like()) if option.name not in hidden]
    options = others + own
    return sorted(options, key=lambda o: verb.positional.index(o.name) if o.name in verb.positional else 99)


def _parameters(function: Callable[..., Any]) -> list[Option]:
    from docstring_parser import DocstringStyle, parse

    hints = typing.get_type_hints(function)
    documented = parse(inspect.getdoc(function) or "", DocstringStyle.GOOGLE).params
    texts = {item.arg_name: " ".join((item.description or "").split()) for item in documented}
    options = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            text, default = texts.get(name, ""), parameter.default
            if default not in (None, False, inspect.Parameter.empty) and "default" not in text:
                shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
                text = f"{text.rstrip('.')} (default: {shown})"
            options.append(Option(name, *_kind(hints[name]), default=default, help=text.replace("%", "%%")))
    return options


def _kind(hint: Any) -> tuple[Any, bool, bool, bool]:
    """kind, several, single, pair of an `Option` whose parameter has this type."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    parts = [part for part in (typing.get_args(hint) if union else (hint,)) if part is not type(None)]
    plain = [part for part in parts if part in (int, float, str, bool)]
    several = any(parts[0] in typing.get_args(part) for part in parts[1:])  # a word, or a sequence of such words
    for part in parts:
        origin, inner = typing.get_origin(part), typing.get_args(part)
        if origin is Literal:
            return inner, several, False, False
        if origin is not None and issubclass(origin, Mapping):
            return dict, False, False, False
        if origin is not None and issubclass(origin, Sequence):
            two = origin is tuple and len(inner) == 2 and inner[1] is not Ellipsis
            return inner[0], True, bool(plain), two and not plain
    kind = int if int in plain and str in plain else next(iter(plain), str)
    return (kind if str not in plain or len(plain) == 1 else str), False, False, False


def _parser_type(option: Option) -> Any:
    if isinstance(option.kind, tuple):
        return Literal[option.kind]
    # 512 stays whole where 0.5 is allowed: a stride is in pixels or a fraction
    return {float: typing.Union[int, float], dict: str}.get(option.kind, option.kind)  # noqa: UP007


def _described(function: Callable[..., Any]) -> tuple[str, str]:
    text = inspect.getdoc(function) or ""
    description = re.split(r"\n\n(?:Args|Examples):\n", text, maxsplit=1)[0]
    examples = re.search(r"\n\nExamples:\n(.*?)(?=\n\n\w+:\n|\Z)", text, re.DOTALL)
    return description, "examples:\n" + examples[1] if examples else ""


def _check_flags(name: str, words: Sequence[str], flags: Sequence[str]) -> None:
    """ValueError for the first option that does not exist, with the nearest one that does."""
    for word in words:
        flag = word.partition("=")[0]
        if word == "--":
            return
        if flag.startswith("--") and flag not in flags:
            near = get_close_matches(flag, flags, n=1)
            hint = f"did you mean {near[0]}?" if near else f"see `{PROGRAM} {name} --help`"
            raise ValueError(f"{PROGRAM} {name} has no option {flag}: {hint}")


def _flags(option: Option, verb: Verb) -> list[str]:
    if option.name in verb.positional:
        return []
    both = option.kind is bool and option.default is not False
    return [option.flag, "--no-" + option.flag[2:]] if both else [option.flag]


def _plain(message: str, verb_name: str, options: Mapping[str, Option], verb: Verb) -> str:
    """The parser's message in one line that a newcomer understands."""
    wrong = re.search(r'Parser key "(\w+)".*?(?:Got|Given) value: ([^\n]*)', message, re.DOTALL)
    if wrong and wrong[1] in options:
        option = options[wrong[1]]
        shown = option.name.upper() if option.name in verb.positional else option.flag
        allowed = f"one of {', '.join(option.kind)}" if isinstance(option.kind, tuple) else _KINDS[option.kind][1]
        near = get_close_matches(wrong[2], option.kind, n=1) if isinstance(option.kind, tuple) else []
        return f"{shown}: {wrong[2]!r} is not {allowed}" + (f"; did you mean {near[0]!r}?" if near else "")
    text = " ".join(message.split()).removeprefix("argument ")
    if text.startswith("the following arguments are required: "):
        names = text.partition(": ")[2].split(", ")
        shown = [name.upper() if name in verb.positional else options[name].flag for name in names if name in options]
        text = f"{' and '.join(shown)} missing"
    return f"{text} (see `{PROGRAM} {verb_name} --help`)"


def _dashed(word: str) -> str:
    """--batch_size=3 as --batch-size=3."""
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-") + equals + value if word.startswith("--") else word


def _key_and_value(flag: str, text: str) -> tuple[str, Any]:
    import yaml

    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"{flag}: {text!r} is not KEY=VALUE")
    try:
        return key.replace("-", "_"), yaml.safe_load(value)
    except yaml.YAMLError:
        return key.replace("-", "_"), value


def _as_list(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
