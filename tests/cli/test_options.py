"""From values to options: what is read from the words, what is said of wrong ones, and the help."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

import pytest

from nonlocalseg.cli import find_verb, main
from nonlocalseg.cli.options import Given, Verb, as_typed, parse, verb
from nonlocalseg.values import Count, Hidden, Metavar, Names, Natural, Positional, Positive, Size, value


@value
class Shout:
    word: Annotated[str, Positional()]
    """The word."""
    others: Annotated[Names, Positional()] = ()
    """More words, 100 % of them."""
    out: Annotated[str, Metavar("FILE")]
    """Where to."""
    times: Count = 1
    """How often."""
    loud: bool = False
    """In capitals."""
    clean: bool = True
    """Without curses."""
    echo: bool | None = None
    """With an echo; by default as the room has it."""
    secret: Annotated[int, Hidden()] = 3
    """Nothing that is written."""


@value
class Voice:
    times: Natural = 7
    """Hidden by the verb's own."""
    register: Literal["low", "high"] = "low"
    """Which."""
    size: Size | None = None
    """Of the room."""
    levels: tuple[Positive, ...] = (1.0, 2.5)
    """How strong."""
    steps: Count | Literal["auto"] = "auto"
    """Of the scale."""
    details: dict[str, object] | None = None
    """Whatever else."""
    throat: bool = False
    """From there."""


def run(own: Shout, given: Given) -> None:
    """Say a word.

    Loudly, or not.

    Examples:
        nonlocalseg shout hello --out x
    """


SHOUT = Verb(run, Shout, (Voice,), more=lambda: "What else there is.")


def read(words: str) -> tuple[Shout, dict[str, Any]]:
    found = parse("nonlocalseg shout", SHOUT, words.split())
    assert found is not None
    return found


def test_own_options_are_an_instance_and_the_others_only_what_was_written():
    own, given = read("hey --out x")
    assert own == Shout(word="hey", out="x")
    assert given == {}
    own, given = read("hey you --out x --times 2 --register high")
    assert (own.word, own.others, own.times) == ("hey", ("you",), 2)
    assert given == {"register": "high"}


@pytest.mark.parametrize(
    ("words", "name", "expected"),
    [
        ("--size 96", "size", (96, 96)),
        ("--size 96 64", "size", (96, 64)),
        ("--size=96", "size", (96, 96)),
        ("--levels 1 1e-3", "levels", (1.0, 1e-3)),
        ("--steps 1e3", "steps", 1000),
        ("--steps auto", "steps", "auto"),
        ("--steps 3 --steps 4", "steps", 4),
        ("--throat", "throat", True),
        ("--no-throat", "throat", False),
        ("--details a-b=8 c=[3,4] d=text e=a=b", "details", {"a_b": 8, "c": [3, 4], "d": "text", "e": "a=b"}),
        ("--details a=1 --details b=[", "details", {"b": "["}),
    ],
)
def test_words_become_values(words, name, expected):
    found = read(f"hey --out x {words}")[1]
    assert found == {name: expected}
    assert type(found[name]) is type(expected)


@pytest.mark.parametrize(
    ("words", "name", "expected"),
    [
        ("", "loud", False),
        ("--loud", "loud", True),
        ("", "clean", True),
        ("--no-clean", "clean", False),
        ("", "echo", None),
        ("--echo", "echo", True),
        ("--no-echo", "echo", False),
    ],
)
def test_switches(words, name, expected):
    assert getattr(read(f"hey --out x {words}")[0], name) is expected


def test_options_may_stand_anywhere():
    assert read("--out x --times 2 hey you")[0] == read("hey --times 2 you --out x")[0]
    assert read("hey --out x -- -a.png")[0].others == ("-a.png",)
    assert read("hey --out x --no_clean")[0] == read("hey --out x --no-clean")[0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "WORD and --out missing"),
        ("hey --outt x", "unknown option of nonlocalseg shout '--outt': did you mean '--out'?"),
        ("hey --out x --no-loud", "did you mean '--loud'?"),
        ("hey --out x --secret 4", "unknown option of nonlocalseg shout '--secret'"),
        ("hey --out x --register hig", "--register: 'hig' is unknown; did you mean 'high'?"),
        ("hey --out x --register purple", "--register: 'purple' is unknown; choose from low, high"),
        ("hey --out x --times 0", "--times: 0; give 1 or more"),
        ("hey --out x --times often", "--times: 'often' is not a whole number"),
        ("hey --out x --levels loud", "--levels: 'loud' is not a number"),
        ("hey --out x --size 1 2 3", "--size: 1 2 3 is 3 values"),
        ("hey --out x --times", "--times: expected one argument (see `nonlocalseg shout --help`)"),
        ("hey --out x --loud=yes", "--loud: ignored explicit argument 'yes'"),
        ("hey --out x --details a", "--details: 'a' is not KEY=VALUE"),
        ("hey --out x --details =a", "--details: '=a' is not KEY=VALUE"),
        ("hey --out x -q", "unrecognized arguments: -q (see `nonlocalseg shout --help`)"),
    ],
)
def test_mistakes_are_one_line_that_names_the_option(words, said):
    with pytest.raises(ValueError, match=r"^[^\n]+$") as caught:
        read(words)
    assert said in str(caught.value)


def test_help_says_everything(capsys):
    assert parse("nonlocalseg shout", SHOUT, ["--help"]) is None
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.startswith(
        "usage: nonlocalseg shout WORD [OTHERS ...] --out FILE [options] Say a word. Loudly, or not. What else there is."
    )
    for text in (
        "OTHERS More words, 100 % of them.",
        "--times N How often (default: 1)",
        "--loud In capitals.",
        "--clean, --no-clean Without curses (default: True)",
        "--echo, --no-echo With an echo; by default as the room has it. --register",
        "--register {low,high} Which (default: low)",
        "--size H [W ...] Of the room.",
        "--levels X [X ...] How strong (default: 1.0 2.5)",
        "--steps N|auto Of the scale (default: auto)",
        "--details KEY=VALUE [KEY=VALUE ...] Whatever else.",
        "--throat, --no-throat From there.",
        "examples: nonlocalseg shout hello --out x With any verb: --debug shows",
    ):
        assert text in shown
    assert "secret" not in shown
    assert "Hidden by" not in shown


def test_the_decorator_makes_the_same():
    made = verb(Shout, Voice)(run)
    assert made.options().keys() == SHOUT.options().keys()
    assert made.run is run


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("crop: mode slide needs the size", "--crop: mode slide needs the size"),
        ("short_side: 3; give 16 or more", "--short-side: 3; give 16 or more"),
        ("short_side 3 is less than crop", "--short-side 3 is less than crop"),
        ("runs/x/recipe.yaml: short_side: 3 is wrong", "runs/x/recipe.yaml: short_side: 3 is wrong"),
        ("no such folder 'short_side'", "no such folder 'short_side'"),
        ("my_short_side is unknown", "my_short_side is unknown"),
    ],
)
def test_messages_spell_options_as_they_are_typed(message, shown):
    assert as_typed(message, find_verb("predict")) == shown


def test_a_mistake_across_fields_is_spelt_as_typed(tmp_path, monkeypatch, capsys):
    def fail(*_: object) -> None:
        raise ValueError("crop: mode slide needs short_side")

    monkeypatch.setattr("nonlocalseg.cli.find_verb", lambda name: replace(find_verb(name), run=fail))
    assert main(["predict", str(tmp_path), str(tmp_path)]) == 2
    assert capsys.readouterr().err == "error: --crop: mode slide needs --short-side\n"
