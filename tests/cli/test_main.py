"""The overview, the help of every verb, its examples, and the exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Annotated

import pytest
import torch

from nonlocalseg import cli
from nonlocalseg.cli import LARGE_PAGES, VERBS, find_verb, listing, main, summary
from nonlocalseg.cli.errors import describe
from nonlocalseg.cli.options import Given, Verb, parse
from nonlocalseg.silence import Notice
from nonlocalseg.values import Hidden, Positional, options_of, value

SLOW = "{'torch', 'torchvision', 'lightning', 'timm', 'rich', 'matplotlib', 'scipy', 'pandas'}"


def test_overview_imports_nothing_slow():
    code = (
        "import sys; from nonlocalseg.cli import main; main(['--help'])\n"
        f"slow = ({SLOW} | {{'numpy', 'pydantic', 'yaml', 'PIL', 'argparse'}}) & set(sys.modules)\n"
        "assert not slow, slow"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for name in VERBS:
        assert f"  {name}" in shown
        assert summary(name) in shown


def test_help_of_verbs_imports_nothing_slow():
    """In one process: what any of them imported would be there at the end."""
    code = (
        "import sys; from nonlocalseg.cli import VERBS, main\n"
        "for name in VERBS:\n"
        "    assert main([name, '--help']) == 0\n"
        f"    slow = {SLOW} & set(sys.modules)\n"
        "    assert not slow, (name, slow)"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)


@pytest.mark.parametrize("name", sorted(VERBS))
def test_every_verb_explains_itself(name, capsys):
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: nonlocalseg {name}")
    assert summary(name)
    assert summary(name) in shown
    assert f"    nonlocalseg {name}" in shown  # an example


@pytest.mark.parametrize("name", sorted(VERBS))
def test_every_field_of_every_value_is_an_option(name, capsys):
    assert main([name, "--help"]) == 0
    words = capsys.readouterr().out.replace(",", " ").split()
    verb = find_verb(name)
    for cls in (verb.own, *verb.values):
        for option in options_of(cls).values():
            if not option.marked(Hidden):
                assert option.help, f"{cls.__name__}.{option.name} is not explained"
                assert (option.name.upper() if option.marked(Positional) else option.flag) in words


@pytest.mark.parametrize("name", sorted(VERBS))
def test_examples_are_accepted(name, capsys):
    """Every example of the help text parses, with the options that exist."""
    main([name, "--help"])
    examples = [line.split()[2:] for line in capsys.readouterr().out.splitlines() if line.startswith("    nonlocalseg")]
    assert examples
    for words in examples:
        assert parse(name, find_verb(name), [word.strip('"') for word in words]) is not None


def test_no_words_and_the_version(capsys):
    assert main([]) == 2
    assert "usage: nonlocalseg VERB" in capsys.readouterr().out
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("nonlocalseg ")


@value
class What:
    what: Annotated[str, Positional()]
    """What to fail at."""


def stand_in(monkeypatch: pytest.MonkeyPatch, run: Callable[[What, Given], int | None]) -> None:
    """Puts `run` in the place of the verb `list`."""
    monkeypatch.setattr(listing, "list_", Verb(run, What))


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """`failing(error)` makes the verb `list` raise it."""

    def fail(error: BaseException) -> None:
        def run(own: What, given: Given) -> None:
            raise error

        stand_in(monkeypatch, run)

    return fail


def test_what_a_verb_returns_is_the_exit_code(monkeypatch):
    stand_in(monkeypatch, lambda own, given: len(own.what))
    assert main(["list", "seven.."]) == 7


def test_unexpected_errors_point_to_debug(failing, capsys):
    failing(KeyError("deep\ninside"))
    assert main(["list", "models"]) == 1
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert line.startswith("internal error: KeyError: ")
    assert "--debug" in line
    assert main(["--debug", "list", "models"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_debug_shows_where_a_mistake_was_found(capsys):
    assert main(["train", "camvid/an", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_interruption(failing, capsys):
    failing(KeyboardInterrupt())
    assert main(["list", "models"]) == 130
    assert capsys.readouterr().err.count("\n") == 1
    lightnings = SystemExit(1)
    lightnings.__context__ = KeyboardInterrupt()
    failing(lightnings)
    assert main(["list", "models"]) == 130


def test_errors_of_worker_processes_lose_their_traceback():
    text = (
        "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "x.py", line 1, in y\n    raise ValueError()\nValueError: a.png: cut off\n'
    )
    assert describe(ValueError(text)) == ("error: a.png: cut off", 2)
    assert describe(ValueError(text.replace("ValueError: a.png", "b.png"))) == ("error: b.png: cut off", 2)
    assert describe(ValueError("two\n  lines")) == ("error: two lines", 2)
    assert describe(OSError(28, "No space left on device", "x.png"))[0].startswith("error: x.png: no space is left")
    assert describe(torch.OutOfMemoryError("CUDA out of memory"))[1] == 1


def test_a_reader_that_stops_listening_is_no_error():
    code = "import sys; from nonlocalseg.cli import main; sys.exit(main(['list', 'recipes']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()
    assert process.wait() == 1


@pytest.mark.parametrize("given", [None, "0"])
def test_torch_is_asked_for_large_pages_before_it_is_there(given):
    code = (
        "import os, sys; from nonlocalseg.cli import LARGE_PAGES, main; main(['--help'])\n"
        "print('torch' in sys.modules, os.environ[LARGE_PAGES], file=sys.stderr)"
    )
    environment = {name: value for name, value in os.environ.items() if name != LARGE_PAGES}
    environment |= {} if given is None else {LARGE_PAGES: given}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert said.stderr == f"False {given or 1}\n"


def test_notices_are_lines_and_other_warnings_are_not(capsys, monkeypatch):
    def run(words):
        warnings.warn("of a library", stacklevel=1)
        warnings.warn("what matters", Notice, stacklevel=1)
        return 0

    monkeypatch.setattr(cli, "_run", run)
    assert main([]) == 0
    assert capsys.readouterr().err == "note: what matters\n"
    assert main(["--debug"]) == 0
    assert "of a library" in capsys.readouterr().err
