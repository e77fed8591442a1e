"""From values to the options of a verb: the fields of dataclasses become a parser, its help, and what it read."""

from __future__ import annotations

import inspect
import re
import types
from argparse import SUPPRESS, ArgumentError, ArgumentParser, BooleanOptionalAction, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Generic, Literal, NoReturn, TypeVar, Union, get_args, get_origin

from nonlocalseg.choices import pick
from nonlocalseg.values import Hidden, Metavar, Option, Positional, options_of

Own = TypeVar("Own")
Given = dict[str, Any]
"""Options of the values that a verb passes on: only those that were written."""


@dataclass(frozen=True)
class Verb(Generic[Own]):
    """The function `run` as a verb; it returns the exit code, or None for 0.

    own: the value whose fields are the verb's own options; `run` gets an instance. values: further values whose fields
    are options as well, where `own` or an earlier one has none of the name; `run` gets, by name, those that were given.
    The paragraphs of the function's docstring describe the verb, "Examples:" ends its help. more: what the description
    says besides, made when it is asked for.
    """

    run: Callable[[Own, Given], int | None]
    own: type[Own]
    values: tuple[type, ...] = ()
    more: Callable[[], str] = field(default=str)

    def options(self) -> dict[str, Option]:
        """Every option by name: first what is written without dashes."""
        found: dict[str, Option] = {}
        for value in (self.own, *self.values):
            found |= {name: option for name, option in options_of(value).items() if name not in found}
        shown = {name: option for name, option in found.items() if not option.marked(Hidden)}
        return dict(sorted(shown.items(), key=lambda item: not _positional(item[1])))

    def flags(self, option: Option) -> list[str]:
        """How an option is written: not at all, --x, or --x and --no-x.

        What a verb passes on may replace what a recipe says, so it can be switched off as well.
        """
        if _positional(option):
            return []
        off = option.default is not False or option.name not in options_of(self.own)
        return [option.flag, f"--no-{option.flag[2:]}"] if _takes(option, bool) and off else [option.flag]

    def read(self, written: Mapping[str, object]) -> tuple[Own, Given]:
        """What `run` takes, from words by option; ValueError, which names the option, for what is wrong with them."""
        options = self.options()
        missing = [_shown(option) for name, option in options.items() if option.required and name not in written]
        if missing:
            raise ValueError(f"{' and '.join(missing)} missing")
        checked = {name: options[name].read(_parsed(options[name], words)) for name, words in written.items()}
        own = {name: checked.pop(name) for name in options_of(self.own) if name in checked}
        return self.own(**own), checked


def verb(
    own: type[Own], *values: type, more: Callable[[], str] = str
) -> Callable[[Callable[[Own, Given], int | None]], Verb[Own]]:
    """Makes a `Verb` of the function below."""
    return lambda run: Verb(run, own, values, more)


def parse(program: str, verb: Verb[Own], arguments: Sequence[str]) -> tuple[Own, Given] | None:
    """What `verb.run` takes; None where help was asked for and printed. Raises ValueError, one line, for mistakes.

    program: the words that start the verb, as the help shows them.
    """
    parser = make_parser(program, verb)
    if {"-h", "--help"} & set(arguments):
        parser.description, parser.epilog = _described(verb)
        parser.print_help()
        return None
    words = [_dashed(word) for word in arguments]
    _check_flags(program, words, [flag for option in verb.options().values() for flag in verb.flags(option)])
    try:
        return verb.read(vars(parser.parse_intermixed_args(words)))
    except ArgumentError as error:
        raise ValueError(f"{error.argument_name}: {error.message} {parser.see}") from None


def as_typed(message: str, verb: Verb[Any]) -> str:
    """A message of the library with the names of options as they are typed: `batch_size 3` is `--batch-size 3`.

    A message about a file, which begins with its path, is left as it is: the names in it are the file's.
    """
    start, colon, rest = message.partition(":")
    if "/" in start or "." in start:
        return message
    flags = {name: option.flag for name, option in verb.options().items() if not _positional(option)}
    if colon and start in flags:
        message = f"{flags[start]}:{rest}"
    return re.sub(r"(?<![\w/.'-])[a-z]+(?:_[a-z]+)+(?![\w/.'])", lambda found: flags.get(found[0], found[0]), message)


class Parser(ArgumentParser):
    """argparse's, which raises where it would print its usage and leave."""

    @property
    def see(self) -> str:
        return f"(see `{self.prog} --help`)"

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message} {self.see}")


def make_parser(program: str, verb: Verb[Any]) -> Parser:
    """A parser that finds the words of each option; the values check them."""
    options = verb.options()
    parser = Parser(
        prog=program,
        usage=_usage(program, options),
        formatter_class=RawDescriptionHelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
        argument_default=SUPPRESS,
    )
    for option in options.values():
        several = _takes(option, tuple) or _takes(option, Mapping)
        if _positional(option):
            # "?" and "*" leave it to Verb.read to say what is missing, in its words
            parser.add_argument(
                option.name, metavar=option.name.upper(), nargs="*" if several else "?", help=_help(option)
            )
        elif _takes(option, bool):
            action = BooleanOptionalAction if len(verb.flags(option)) > 1 else "store_true"
            parser.add_argument(option.flag, dest=option.name, action=action, help=_help(option))
        else:
            nargs = "+" if several else None
            parser.add_argument(
                option.flag, dest=option.name, metavar=_metavar(option), nargs=nargs, help=_help(option)
            )
    return parser


# --- What an option looks like ----------------------------------------------------------------------------------


def _positional(option: Option) -> bool:
    return option.marked(Positional) is not None


def _shown(option: Option) -> str:
    return option.name.upper() if _positional(option) else option.flag


def _takes(option: Option, kind: type) -> bool:
    """Whether one of the types that the option allows is `kind`."""
    origins = [get_origin(part) or part for part in _parts(option.kind)]
    return any(isinstance(origin, type) and issubclass(origin, kind) for origin in origins)


def _parts(kind: Any) -> Iterator[Any]:
    """The types in a union, without their annotations."""
    if get_origin(kind) is Annotated:
        yield from _parts(get_args(kind)[0])
    elif get_origin(kind) in (Union, types.UnionType):
        for part in get_args(kind):
            yield from _parts(part)
    elif kind is not types.NoneType:
        yield kind


def _leaves(kind: Any) -> Iterator[Any]:
    """The types that a single word can have."""
    for part in _parts(kind):
        if get_origin(part) is tuple:
            yield from _leaves(get_args(part)[0])
        else:
            yield part


def _marked(kind: Any) -> Metavar | None:
    """The first name for the value among the annotations."""
    if get_origin(kind) is Annotated:
        return next((mark for mark in kind.__metadata__ if isinstance(mark, Metavar)), None) or _marked(
            get_args(kind)[0]
        )
    parts = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else ()
    return next((mark for mark in map(_marked, parts) if mark), None)


def _choices(option: Option) -> str:
    """The words that are allowed, {a,b}; with a kind of number or text before them where that is allowed too."""
    leaves = list(_leaves(option.kind))
    words = [str(word) for leaf in leaves if get_origin(leaf) is Literal for word in get_args(leaf)]
    kind = next((name for kind, name in ((str, "TEXT"), (float, "X"), (int, "N")) if kind in leaves), "")
    return "|".join([kind, *words]) if kind else "{" + ",".join(words) + "}" if words else ""


def _metavar(option: Option) -> str | tuple[str, ...]:
    if mark := _marked(option.kind):
        words = tuple(mark.text.split())
        return words if len(words) == 2 else mark.text
    return "KEY=VALUE" if _takes(option, Mapping) else _choices(option) or "TEXT"


def explained(option: Option) -> str:
    """The help, with the words that are allowed."""
    words = _choices(option)
    return f"{option.help.rstrip('.')}: {words}" if words.startswith("{") else option.help


def _help(option: Option) -> str:
    text, default = explained(option) if _positional(option) else option.help, option.default
    if default is not None and default is not False and default not in ("", (), {}) and "default" not in text:
        shown = " ".join(map(str, default)) if isinstance(default, (tuple, list)) else default
        text = f"{text.rstrip('.')} (default: {shown})"
    return text.replace("%", "%%")


def _usage(program: str, options: Mapping[str, Option]) -> str:
    """In one line: what must be given; the options are explained below it."""
    words = [program]
    for option in options.values():
        word = option.name.upper() + (" ..." if _takes(option, tuple) else "")
        if _positional(option):
            words.append(word if option.required else f"[{word}]")
        elif option.required:
            words.append(f"{option.flag} {_metavar(option)}")
    return " ".join([*words, "[options]"])


def _described(verb: Verb[Any]) -> tuple[str, str]:
    description, _, examples = (inspect.getdoc(verb.run) or "").partition("\n\nExamples:\n")
    more = verb.more()
    end = "With any verb: --debug shows where an error was raised; --zoo-mirror DIR|URL is where models of the zoo come from."
    return description + (f"\n\n{more}" if more else ""), (f"examples:\n{examples}\n\n" if examples else "") + end


# --- The words of an option -------------------------------------------------------------------------------------


def _check_flags(program: str, words: Sequence[str], flags: Sequence[str]) -> None:
    """ValueError for the first option that does not exist, with the nearest one that does."""
    for word in words:
        if word == "--":
            return
        if word.startswith("--"):
            pick(f"option of {program}", word.partition("=")[0], flags)


def _dashed(word: str) -> str:
    """--batch_size=3 as --batch-size=3."""
    flag, equals, value = word.partition("=")
    return flag.replace("_", "-") + equals + value if word.startswith("--") else word


def _parsed(option: Option, words: object) -> object:
    """The words of an option as its value is given them: names with values where it holds such."""
    if isinstance(words, list) and _takes(option, Mapping):
        return dict(_key_and_value(option.flag, word) for word in words)
    return words


def _key_and_value(flag: str, text: str) -> tuple[str, Any]:
    import yaml

    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ValueError(f"{flag}: {text!r} is not KEY=VALUE")
    try:
        return key.replace("-", "_"), yaml.safe_load(value)
    except yaml.YAMLError:
        return key.replace("-", "_"), value
