"""README.md says what is true: its tree names the files there are, its commands parse, its two trips are those of images."""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import nonlocalseg as nls
from nonlocalseg.cli import PROGRAM, VERBS, find_verb, main
from nonlocalseg.cli.options import parse
from nonlocalseg.images import write_image, write_mask
from nonlocalseg.recipes.schema import Phase
from nonlocalseg.training.data import SegmentationData
from nonlocalseg.training.plan import Plan
from nonlocalseg.values import names_of

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "nonlocalseg"
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
FENCED = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
INLINE = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", re.sub(r"(?ms)^```.*?^```$", "", TEXT))]
TREE = next(block for _, block in FENCED if block.startswith("src/nonlocalseg/\n"))
MOST_FILES = 5


# --- The tree ---------------------------------------------------------------------------------------------------


def named() -> list[str]:
    """The files below src/nonlocalseg that the tree names: those of a package may share lines."""
    found, folder = [], ""
    for line in TREE.splitlines()[1:]:
        if line.startswith(" "):
            if len(line) - len(line.lstrip()) == 2:
                first = line.split()[0]
                folder = first if first.endswith("/") else ""
            found += [folder + name for name in re.findall(r"[\w.]+\.(?:py|j2|css)\b", line)]
    return found


def there() -> set[str]:
    """All of them, but for the `__init__.py` that hold nothing but a sentence."""
    files = {path for suffix in ("py", "j2", "css") for path in SOURCE.rglob(f"*.{suffix}")}
    return {path.relative_to(SOURCE).as_posix() for path in files if path.name != "__init__.py" or _does(path)}


def _does(path: Path) -> bool:
    return len(ast.parse(path.read_text(encoding="utf-8")).body) > 1


def test_the_tree_names_every_file_and_no_other():
    assert sorted(there() - set(named())) == [], "add them to the tree in README.md"
    assert sorted(set(named()) - there()) == [], "the tree in README.md names what is not there"


def test_the_tree_names_what_stands_beside_the_source():
    beside = [line.split()[0] for line in TREE.splitlines()[1:] if not line.startswith(" ")]
    assert beside == ["tests/", "benchmarks/", "docs/", "CONTRIBUTING.md"]
    assert all((ROOT / name).exists() for name in beside)


def test_files_that_are_mentioned_exist():
    files = [span for span in INLINE if re.fullmatch(r"[\w/]+\.(py|md)", span)]
    assert files
    assert [name for name in files if not (ROOT / name).exists() and not (SOURCE / name).exists()] == []
    pictures = re.findall(r"\]\(([\w/.]+)\)", TEXT)
    assert [name for name in pictures if not (ROOT / name).exists()] == []


# --- Commands and code ------------------------------------------------------------------------------------------


def commands() -> list[str]:
    """Every `nonlocalseg VERB ...`, in blocks and in sentences; in these some begin with the verb."""
    lines = [line for _, block in FENCED for line in block.splitlines() if line.startswith(f"{PROGRAM} ")]
    spoken = [span.removeprefix(f"{PROGRAM} ") for span in INLINE if span.startswith(f"{PROGRAM} ")]
    short = [span for span in INLINE if " " in span and span.split()[0] in VERBS]
    return [*(line.removeprefix(f"{PROGRAM} ") for line in lines), *spoken, *short]


@pytest.mark.parametrize("command", dict.fromkeys(commands()))
def test_commands_parse(command):
    name, *words = shlex.split(command, comments=True)
    assert name in VERBS
    if words:  # `nonlocalseg benchmark` alone is a name
        parse(name, find_verb(name), words)


def test_options_exist(capsys):
    every = {
        flag for name in VERBS for verb in [find_verb(name)] for o in verb.options().values() for flag in verb.flags(o)
    }
    assert main(["--help"]) == 0
    every |= set(re.findall(r"--[a-z-]+", capsys.readouterr().out))  # those of any verb
    spoken = {word for span in INLINE if span.startswith("--") for word in span.split() if word.startswith("--")}
    assert spoken
    assert sorted(spoken - every - {"--help"}) == []


def test_modules_and_targets_exist():
    modules = re.findall(r"python -m (benchmarks[\w.]+)", TEXT)
    assert modules
    for name in modules:
        assert (ROOT / (name.replace(".", "/") + ".py")).is_file(), name
    for path in re.findall(r"python ([\w/]+\.py)", TEXT):
        assert (ROOT / path).is_file(), path
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"(?m)(?:^|`)make ([\w-]+)", TEXT):
        assert f"\n{target}:" in makefile, target


def test_python_uses_public_names():
    fields = {*names_of(nls.View), *names_of(nls.DataSource), *names_of(Phase), *names_of(Plan)}
    calls = [
        node
        for language, block in FENCED
        if language == "python"
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("nls.")
    ]
    assert calls
    for call in calls:
        name = ast.unparse(call.func).removeprefix("nls.")
        assert name in nls.__all__
        known = fields | set(inspect.signature(getattr(nls, name)).parameters)
        assert {word.arg for word in call.keywords} <= known, name


# --- The trip of an image ---------------------------------------------------------------------------------------
#
# A file belongs to the trip when one of its functions is called with, or gives back, something with rows and columns: a
# tensor or array of two dimensions or more, alone or inside a list, tuple or dict. That leaves out what only decides
# about it (values, grids of windows, seeds). The network itself, in models/, heads/ and blocks/, is the trip's end.


def trip(travel: Callable[[], object]) -> list[str]:
    """The files of ours, in order, through which images pass while `travel` runs."""
    found: dict[str, None] = {}

    def listen(frame, event, given):
        if not frame.f_code.co_filename.startswith(str(SOURCE)):
            return
        held = list(frame.f_locals.values()) if event == "call" else [given] if event == "return" else []
        if _is_image(held):
            found[Path(frame.f_code.co_filename).relative_to(SOURCE).as_posix()] = None

    sys.setprofile(listen)
    try:
        travel()
    finally:
        sys.setprofile(None)
    return [name for name in found if name.split("/")[0] not in ("models", "heads", "blocks")]


def _is_image(given: object) -> bool:
    if isinstance(given, (list, tuple)):
        return any(map(_is_image, given))
    if isinstance(given, dict):
        return any(map(_is_image, given.values()))
    return isinstance(given, (torch.Tensor, np.ndarray)) and given.ndim >= 2


def told(beginning: str) -> set[str]:
    """The files that the README's sentence with this beginning names."""
    sentence = TEXT[TEXT.index(beginning) :].split(";")[0].split("\n\n")[0]
    return set(re.findall(r"`([\w/]+\.py)`", sentence))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    for number in range(2):
        write_image(tmp_path / "images" / "train" / f"{number}.png", pixels)
        write_mask(tmp_path / "masks" / "train" / f"{number}.png", pixels[..., 0] % 2)
    (tmp_path / "classes.yaml").write_text("masks: {0: ground, 1: thing}\n")
    return tmp_path


def test_a_training_image_passes_five_files(folder):
    phase = Phase(
        data="folder", root=str(folder), crop=(48, 48), batch_size=2, steps=1, class_balance=0.75, val_split="none"
    )
    data = SegmentationData(phase, (0.5, 0.5, 0.5), seed=0, workers=0, parts=1)
    found = trip(lambda: data.first_batch(world=1))
    assert len(found) <= MOST_FILES
    assert set(found) == told("One training image passes through")


def test_a_photograph_passes_five_files(folder):
    model = nls.create_model("fcn", "test_resnet.r160_in1k", num_classes=2, channels=8).eval()
    photograph = folder / "images" / "train" / "0.png"
    view = nls.View(mode="slide", crop=(32, 32), scales=(1.0, 1.5), flip=True)
    found = trip(lambda: nls.predict(model, photograph, view))
    assert len(found) <= MOST_FILES
    assert set(found) == told("One photograph, on its way")
