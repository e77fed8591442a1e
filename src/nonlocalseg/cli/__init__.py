"""The command line, `nonlocalseg VERB ...`: a typed function per verb, in the modules beside; imports nothing slow."""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from difflib import get_close_matches

from nonlocalseg.cli import (
    conversion,
    datasets,
    evaluation,
    explaining,
    listing,
    measuring,
    prediction,
    reporting,
    training,
)
from nonlocalseg.cli.errors import BAD_INPUT, FAILED, INTERRUPTED, explain, interrupted
from nonlocalseg.cli.parsing import PROGRAM, Verb, parse

VERBS: dict[str, Verb] = {
    "demo": Verb(training.demo, like=training.demo_function),
    "list": Verb(listing.list_, ("what",)),
    "check-data": Verb(datasets.check_data, ("data",)),
    "prepare": Verb(datasets.prepare, ("data",)),
    "train": Verb(training.train, ("recipe",), like=training.train_function),
    "evaluate": Verb(
        evaluation.evaluate, ("models",), like=evaluation.evaluate_function, without=("model", "progress")
    ),
    "predict": Verb(prediction.predict, ("model", "paths")),
    "explain": Verb(explaining.explain, ("model", "image")),
    "report": Verb(reporting.report, ("run",), like=reporting.report_function),
    "submit": Verb(datasets.submit, ("data", "model"), like=datasets.submit_function),
    "convert": Verb(conversion.convert, ("source_file",)),
    "benchmark": Verb(measuring.benchmark, ("what",)),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return its exit code: 0, 2 for bad input, 1 for other failures, 130 after Ctrl-C.

    Every mistake is one line on stderr; `--debug`, anywhere among the arguments, shows the traceback as well.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    try:
        with warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("ignore")  # what a user can act on is an error or part of the output
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
                print("interrupted: files written so far are whole; run the same command again", file=sys.stderr)
            return INTERRUPTED
        if isinstance(error, SystemExit):
            return error.code if isinstance(error.code, int) else int(error.code is not None)
        line, code = explain(error)
        print(line, file=sys.stderr)
        return code


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return 0 if words else BAD_INPUT
    if words[0] == "--version":
        from nonlocalseg import __version__

        print(f"{PROGRAM} {__version__}")
        return 0
    name = words[0].replace("_", "-")
    if name not in VERBS:
        near = get_close_matches(name, VERBS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(VERBS)}"
        raise ValueError(f"there is no verb {words[0]!r}: {hint}")
    keywords = parse(name, VERBS[name], words[1:])
    return 0 if keywords is None else VERBS[name].run(**keywords) or 0


def _overview() -> str:
    width = max(map(len, VERBS))
    verbs = [f"  {name:{width}}  {verb.summary}" for name, verb in VERBS.items()]
    return "\n".join(
        [
            f"usage: {PROGRAM} VERB ...",
            "",
            "Train, measure, explain and ship scene-parsing models with long-range context.",
            "",
            *verbs,
            "",
            f"{PROGRAM} VERB --help explains the options of a verb; {PROGRAM} --version tells the version.",
            f"Nothing at hand yet? Try: {PROGRAM} demo",
        ]
    )
