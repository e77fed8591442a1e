"""The arrows between modules, the lazy package, and file sizes: parsed from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "nonlocalseg"

# Part -> the parts of ours it may import; every part may import itself, and `files`, which imports nothing.
LEAVES = ("blocks", "losses", "metrics", "boundaries", "drawing", "images")
ARROWS: dict[str, set[str]] = {
    **{leaf: set() for leaf in LEAVES},
    "files": set(),
    "data": {"images"},
    "inference": {"images"},
    "models": {"blocks"},
    "metrics": {"boundaries"},
    "training": {"models", "data", "losses", "metrics", "inference", "drawing"},
    "explanations": {"models", "blocks", "inference", "images"},
    "exporting": {"models", "blocks", "inference", "images"},
    "timing": {"training", "data", "models", "blocks", "inference"},
    "web": {"models", "inference", "explanations", "drawing", "images"},
}
EVERYTHING_BUT = {
    "report": {"cli", "web"},
    "submission": {"cli", "web"},
    "cli": set(),
    "__main__": set(),
    "__init__": set(),
}
# Packages that only some parts import.
OWNERS = {
    "lightning": {"training"},
    "onnx": {"exporting"},
    "onnxruntime": {"exporting"},
    "onnxscript": {"exporting"},
    "huggingface_hub": {"models"},
    "gradio": {"web"},
}
FILES = sorted(SOURCE.rglob("*.py"))


def part_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def imports_of(path: Path) -> set[str]:
    """Absolute dotted names of everything the file imports, at any depth."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} uses a relative import; the arrows are read from absolute ones"
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return names


def ours_in(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("nonlocalseg.")}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_arrows(path):
    part = part_of(path)
    parts = {part_of(p) for p in FILES}
    imported = ours_in(imports_of(path)) & parts - {part, "files"}
    if part in EVERYTHING_BUT:
        assert not imported & EVERYTHING_BUT[part]
    else:
        assert part in ARROWS, f"{part} has no arrows: add it to the list on purpose"
        assert imported <= ARROWS[part]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_heavy_packages_have_one_owner(path):
    roots = {name.split(".")[0] for name in imports_of(path)}
    for package, owners in OWNERS.items():
        assert package not in roots or part_of(path) in owners, f"{package} is imported by {part_of(path)}"
    if "huggingface_hub" in roots:
        assert path.name == "hub.py"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_every_file_opens_with_what_it_owns(path):
    text = path.read_text(encoding="utf-8")
    assert not text or ast.get_docstring(ast.parse(text))


def test_no_vague_module_names():
    vague = {"utils", "helpers", "manager", "misc", "common", "util", "helper"}
    assert not [p for p in FILES if p.stem in vague]


def test_importing_the_package_is_light():
    heavy = ["lightning", "gradio", "onnx", "matplotlib", "timm", "torchvision", "scipy"]
    code = f"import sys, nonlocalseg; print([name for name in {heavy} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_public_names_exist():
    import nonlocalseg

    for name in nonlocalseg.__all__:
        assert getattr(nonlocalseg, name) is not None
    with pytest.raises(AttributeError):
        nonlocalseg.nothing  # noqa: B018
