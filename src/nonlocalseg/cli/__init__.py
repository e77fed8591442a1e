"""The command line, `nonlocalseg VERB ...`: the verbs in their order, how one is run, and the exit codes."""

from __future__ import annotations

import ast
import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nonlocalseg.choices import pick
from nonlocalseg.cli.errors import BAD_INPUT, FAILED, INTERRUPTED, describe, interrupted
from nonlocalseg.cli.terminal import say
from nonlocalseg.silence import Notice

if TYPE_CHECKING:
    from nonlocalseg.cli.options import Verb

PROGRAM = "nonlocalseg"
MIRROR = "NONLOCALSEG_ZOO_MIRROR"  # as in zoo/download.py, whose import takes longer; a test compares the two
LARGE_PAGES = "THP_MEM_ALLOC_ENABLE"
"""With it torch asks Linux for pages of 2 MiB: fine maps of large images are in memory after a few hundred page faults
instead of a few hundred thousand. It is read when torch first takes memory."""
# Verb -> its module beside this one and its name there, so that the overview imports none of them.
VERBS = {
    "demo": ("training", "demo"),
    "list": ("listing", "list_"),
    "check-data": ("datasets", "check_data"),
    "prepare": ("datasets", "prepare"),
    "train": ("training", "train"),
    "evaluate": ("evaluation", "evaluate"),
    "predict": ("prediction", "predict"),
    "explain": ("explanation", "explain"),
    "serve": ("serving", "serve"),
    "report": ("reporting", "report"),
    "submit": ("datasets", "submit"),
    "export": ("exporting", "export"),
    "convert": ("conversion", "convert"),
    "push": ("publishing", "push"),
    "benchmark": ("measuring", "benchmark"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code: 0, 2 for bad input, 1 for other failures, 130 after Ctrl-C.

    Every mistake is one line on stderr; `--debug`, anywhere among the arguments, shows the traceback as well, and
    `--zoo-mirror` says where the zoo's files come from.
    """
    os.environ.setdefault(LARGE_PAGES, "1")
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        with _zoo_mirror(words), warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("ignore")  # what a user can act on is an error, a notice, or part of the output
            warnings.simplefilter("always", Notice)
            warnings.showwarning = _show
            code = _run(words)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of our output has gone, as in `... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except BaseException as error:
        if debug:
            traceback.print_exc()
        if interrupted(error):
            if not isinstance(error, SystemExit):  # training has said how to go on
                say("interrupted: files written so far are whole; run the same command again")
            return INTERRUPTED
        if isinstance(error, SystemExit):
            return error.code if isinstance(error.code, int) else int(error.code is not None)
        line, code = describe(error)
        say(line)
        return code


def _show(message: Warning | str, *where: Any) -> None:
    say(f"note: {message}" if isinstance(message, Notice) else warnings.formatwarning(message, *where[:3]).rstrip())


@contextmanager
def _zoo_mirror(words: list[str]) -> Iterator[None]:
    """Takes `--zoo-mirror DIR|URL` out of `words`; inside, the zoo and the processes begun here know it."""
    before = os.environ.get(MIRROR)
    for place, word in enumerate(words):
        if word.partition("=")[0] == "--zoo-mirror":
            given = word.partition("=")[2] or "".join(words[place + 1 : place + 2])
            if not given or given.startswith("--"):
                raise ValueError("--zoo-mirror: give a folder or an address, such as --zoo-mirror /data/zoo")
            del words[place : place + (1 if "=" in word else 2)]
            os.environ[MIRROR] = given
            break
    try:
        yield
    finally:
        os.environ.pop(MIRROR, None) if before is None else os.environ.update({MIRROR: before})


def find_verb(name: str) -> Verb[Any]:
    """The verb called `name`, its module imported."""
    module, attribute = VERBS[name]
    return getattr(importlib.import_module(f"nonlocalseg.cli.{module}"), attribute)


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0 if words else BAD_INPUT
    if words[0] == "help":
        words = [*words[1:2], "--help"]
        return _run(words)
    if words[0] == "--version":
        from nonlocalseg import __version__

        print(f"{PROGRAM} {__version__}")
        return 0
    from nonlocalseg.cli.options import as_typed, parse

    name = pick("verb", words[0].replace("_", "-"), VERBS)
    verb = find_verb(name)
    found = parse(f"{PROGRAM} {name}", verb, words[1:])
    try:
        return 0 if found is None else verb.run(*found) or 0
    except ValueError as error:
        text = as_typed(str(error), verb)
        if text == str(error):
            raise
        raise ValueError(text) from error


def _overview() -> str:
    width = max(map(len, VERBS))
    verbs = [f"  {name:{width}}  {summary(name)}" for name in VERBS]
    return "\n".join(
        [
            f"usage: {PROGRAM} VERB ...",
            "",
            "Train, measure, explain and ship scene-parsing models with long-range context.",
            "",
            *verbs,
            "",
            f"{PROGRAM} help VERB, or VERB --help, explains the options of a verb; {PROGRAM} --version tells the version.",
            "--zoo-mirror DIR|URL, with any verb, says where the files of `list zoo` come from.",
            f"Nothing at hand yet? Try: {PROGRAM} demo",
        ]
    )


def summary(name: str) -> str:
    """What a verb does: the first line of its docstring, read from the source, because importing it takes longer."""
    module, attribute = VERBS[name]
    source = ast.parse(Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8"))
    function = next(n for n in source.body if isinstance(n, ast.FunctionDef) and n.name == attribute)
    return (ast.get_docstring(function) or "").partition("\n")[0]
