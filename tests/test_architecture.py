"""The house: which part may import which, circles, sizes, names, suppressions, the lazy package. Read from the source.

Every rule is a function from a source folder to what breaks it, so that the tests below can also break it on purpose.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "nonlocalseg"

# Each may import those before it.
LEAVES = (
    "choices",
    "extras",
    "values",
    "labels",
    "view",
    "runtime",
    "files",
    "lock",
    "progress",
    "silence",
    "images",
    "blocks",
    "mining",
    "losses",
    "metrics",
    "boundaries",
    "drawing",
)
EVERYBODY = {"choices", "extras", "labels", "values", "view", "runtime", "files", "lock", "progress", "silence"}
BELOW_MODELS = {"heads", "blocks"}
MODELS = {"models", *BELOW_MODELS}
ZOO = {"zoo", "conversion", "exporting", "data", "images", *MODELS}
EVALUATION = {"inference", *ZOO, "metrics", "boundaries", "drawing", "images"}
TRAINING = {"recipes", "evaluation", "losses", *EVALUATION}
# Part -> the parts that it may import beside itself and those that everybody may.
ARROWS: dict[str, set[str]] = {
    **{leaf: set(LEAVES[:place]) for place, leaf in enumerate(LEAVES)},
    "heads": {"blocks"},
    "models": BELOW_MODELS,
    "conversion": MODELS,
    "exporting": MODELS,
    "data": {"images"},
    "zoo": ZOO - {"zoo"},
    "inference": {"drawing", *ZOO},
    "recipes": {"data", *MODELS},
    "evaluation": EVALUATION,
    "explanation": EVALUATION - {"data"},
    "training": TRAINING,
    "timing": {"training", *TRAINING},
    "demo": {"training", *TRAINING},
    "serving": {"explanation", *EVALUATION},
    "report": {"training", "timing", "explanation", *TRAINING},
    "publishing": {"training", *TRAINING},
}
ARROWS["cli"] = {*ARROWS, "conversion"}
ARROWS["__main__"] = {"cli"}
# Packages that only some parts, or files, import.
OWNERS: dict[str, set[str]] = {
    "lightning": {"training"},
    "huggingface_hub": {"publishing", "models/hub_client.py", "models/pretrained.py", "zoo/download.py"},
    "jinja2": {"report"},
    "gradio": {"serving"},
    "fastapi": {"serving"},
    "uvicorn": {"serving"},
    "matplotlib": {"drawing"},
    "h5py": {"data/nyudv2.py"},
    "timm": {"models", "training"},
    "argparse": {"cli"},
    "ray": {"inference/many.py"},
    "fsspec": {"inference/addresses.py", "inference/sources.py"},
    "pyarrow": {"inference/tables.py"},
    "onnx": {"exporting"},
    "onnxscript": {"exporting"},
    "onnxruntime": {"exporting"},
    "openvino": {"exporting"},
    "nncf": {"exporting"},
    "av": {"inference"},
    "rasterio": {"inference/rasters.py", "inference/maps.py", "inference/polygons.py"},
}
LARGEST_FILE, MOST_PARAMETERS, MOST_SUPPRESSIONS = 300, 12, 8
VAGUE = {"utils", "util", "helpers", "helper", "manager", "misc", "common"}
VAGUE |= {"fitting", "settings", "groups", "bookkeeping", "running", "planning"}
SUPPRESSION = re.compile(r"#\s*(?:type: ignore|pyright: ignore|noqa)(?:\[[^\]]*\]|:\s*[A-Z]+\d+)?(?P<reason>.*)")


def files_in(source: Path) -> list[Path]:
    return sorted(source.rglob("*.py"))


def part_of(path: Path, source: Path) -> str:
    return path.relative_to(source).parts[0].removesuffix(".py")


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_by(path: Path) -> set[str]:
    """Absolute dotted names of everything a file imports, in functions too, but not for type checkers alone."""
    found: set[str] = set()
    for node in _at_run_time(parsed(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} uses a relative import; the arrows are read from absolute ones"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found


def _at_run_time(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from _at_run_time(child)


def modules_in(source: Path) -> dict[str, Path]:
    """Dotted name -> file."""
    names = {}
    for path in files_in(source):
        parts = ["nonlocalseg", *path.relative_to(source).with_suffix("").parts]
        names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


# --- The rules --------------------------------------------------------------------------------------------------


def unknown_places(source: Path) -> Iterator[str]:
    for path in files_in(source):
        if part_of(path, source) not in {*ARROWS, "__init__"}:
            yield f"{path.relative_to(source)}: an unknown place; give it its arrows in {Path(__file__).name}"


def climbing_arrows(source: Path) -> Iterator[str]:
    parts = {part_of(path, source) for path in files_in(source)}
    for path in files_in(source):
        part = part_of(path, source)
        if part in ARROWS:
            names = {name.split(".")[1] for name in imported_by(path) if name.startswith("nonlocalseg.")}
            for other in sorted(names & parts - {part, *ARROWS[part]} - (EVERYBODY if part not in LEAVES else set())):
                yield f"{path.relative_to(source)} imports {other}, which {part} must not"


def circles(source: Path) -> Iterator[str]:
    """Files that import each other, however far around; the package's own lazy `__init__` aside."""
    modules = modules_in(source)
    modules.pop("nonlocalseg", None)
    arrows = {name: {n for n in imported_by(path) if n in modules and n != name} for name, path in modules.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> Iterator[str]:
        if name in trail:
            yield " -> ".join([*trail[trail.index(name) :], name])
        elif name not in done:
            for other in sorted(arrows[name]):
                yield from visit(other, (*trail, name))
            done.add(name)

    for name in modules:
        yield from visit(name, ())


def long_files(source: Path) -> Iterator[str]:
    for path in files_in(source):
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > LARGEST_FILE:
            yield f"{path.relative_to(source)} has {count} lines, more than {LARGEST_FILE}"


def long_signatures(source: Path) -> Iterator[str]:
    for path in files_in(source):
        if part_of(path, source) == "blocks":
            continue
        for node in ast.walk(parsed(path)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                given = node.args
                names = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
                if (count := sum(name is not None for name in names)) > MOST_PARAMETERS:
                    yield f"{path.relative_to(source)}: {node.name} has {count} parameters, more than {MOST_PARAMETERS}"


def foreign_packages(source: Path) -> Iterator[str]:
    for path in files_in(source):
        place, part = path.relative_to(source).as_posix(), part_of(path, source)
        for package in {name.split(".")[0] for name in imported_by(path)} & OWNERS.keys():
            if not OWNERS[package] & {place, part}:
                yield f"{place} imports {package}, which belongs to {', '.join(sorted(OWNERS[package]))}"


def silent_files(source: Path) -> Iterator[str]:
    for path in files_in(source):
        if not ast.get_docstring(parsed(path)):
            yield f"{path.relative_to(source)} does not open with what it owns"


def unclear_names(source: Path) -> Iterator[str]:
    public = _public_names(source)
    for path in files_in(source):
        place = path.relative_to(source)
        if path.stem in VAGUE:
            yield f"{place}: a name that says nothing"
        if place.parts[0].removesuffix(".py") in public:
            yield f"{place}: the public name nonlocalseg.{place.parts[0]} would be hidden by the module"
        for node in parsed(path).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == path.stem:
                yield f"{place}: {node.name} shares its module's name"


def _public_names(source: Path) -> set[str]:
    for node in parsed(source / "__init__.py").body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def suppressions(source: Path) -> Iterator[str]:
    found = [
        (path, line, match["reason"])
        for path in files_in(source)
        for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if (match := SUPPRESSION.search(text))
    ]
    if len(found) > MOST_SUPPRESSIONS:
        yield f"{len(found)} suppressions, more than {MOST_SUPPRESSIONS}"
    for path, line, reason in found:
        if len(reason.strip(" #")) < 8:
            yield f"{path.relative_to(source)}:{line}: a suppression without its reason"


RULES: tuple[Callable[[Path], Iterator[str]], ...] = (
    unknown_places,
    climbing_arrows,
    circles,
    long_files,
    long_signatures,
    foreign_packages,
    silent_files,
    unclear_names,
    suppressions,
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_keeps(rule):
    assert list(rule(SOURCE)) == []


@pytest.mark.parametrize(
    ("rule", "files", "message"),
    [
        (unknown_places, {"attic/box.py": '"""Things."""'}, "attic/box.py: an unknown place"),
        (
            climbing_arrows,
            {"blocks/a.py": '"""A."""\nfrom nonlocalseg.cli import b', "cli/b.py": '"""B."""'},
            "must not",
        ),
        (
            climbing_arrows,
            {"files.py": "def f():\n    import nonlocalseg.images", "images.py": ""},
            "files.py imports images",
        ),
        (
            circles,
            {
                "data/a.py": "from nonlocalseg.data import b",
                "data/b.py": "def f():\n    from nonlocalseg.data.c import x",
                "data/c.py": "import nonlocalseg.data.a",
            },
            "nonlocalseg.data.a -> nonlocalseg.data.b -> nonlocalseg.data.c -> nonlocalseg.data.a",
        ),
        (long_files, {"files.py": "x = 1\n" * 301}, "files.py has 301 lines"),
        (
            long_signatures,
            {"files.py": f"def f({', '.join(f'a{i}' for i in range(12))}, **more): ..."},
            "13 parameters",
        ),
        (
            foreign_packages,
            {"data/a.py": "def f():\n    import lightning.pytorch"},
            "lightning, which belongs to training",
        ),
        (silent_files, {"files.py": ""}, "does not open with"),
        (unclear_names, {"data/utils.py": ""}, "says nothing"),
        (unclear_names, {"data/check.py": "def check(): ..."}, "shares its module's name"),
        (unclear_names, {"__init__.py": '__all__ = ["explain"]', "explain/a.py": ""}, "would be hidden"),
        (suppressions, {"files.py": "x = 1  # noqa: E501"}, "without its reason"),
        (suppressions, {"files.py": "x = 1  # noqa: E501  # as long as its URL\n" * 9}, "9 suppressions"),
    ],
)
def test_every_rule_can_be_broken(tmp_path, rule, files, message):
    for name, text in {"__init__.py": "", **files}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert any(message in problem for problem in rule(tmp_path)), list(rule(tmp_path))


# --- The package ------------------------------------------------------------------------------------------------


def run_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_the_package_is_light():
    heavy = [
        "lightning",
        "gradio",
        "onnx",
        "onnxruntime",
        "openvino",
        "matplotlib",
        "timm",
        "torchvision",
        "scipy",
        "pydantic",
    ]
    assert run_python(f"import sys, nonlocalseg; print([name for name in {heavy} if name in sys.modules])") == "[]"


def test_evaluating_needs_neither_lightning_nor_plots():
    heavy = ("lightning", "matplotlib", "h5py", "nonlocalseg.recipes")
    code = f"import sys, nonlocalseg as nls; nls.evaluate; print([m for m in {heavy} if m in sys.modules])"
    assert run_python(code) == "[]"


@pytest.mark.parametrize(
    "module", ["values", "data.source", "data.augmentation", "view", "recipes.schema", "training.plan"]
)
def test_the_values_need_no_torch(module):
    code = f"import sys, nonlocalseg.{module}; print('torch' in sys.modules or 'numpy' in sys.modules)"
    assert run_python(code) == "False"


def test_public_names_exist():
    import nonlocalseg

    for name in nonlocalseg.__all__:
        assert getattr(nonlocalseg, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        nonlocalseg.nothing  # noqa: B018


def test_public_names_are_strictly_typed():
    """pyright's strict rules hold where they are defined: `make lint`."""
    import nonlocalseg

    strict = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text())["tool"]["pyright"]["strict"]
    modules = ["__init__", *{name.partition(".")[2].replace(".", "/") for name in nonlocalseg._PUBLIC.values()}]
    assert sorted(strict) == sorted(f"src/nonlocalseg/{module}.py" for module in modules)


def test_every_data_file_is_packed():
    """Setuptools packs Python files by itself; others only where they are named."""
    named = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    others = [path.relative_to(SOURCE) for path in SOURCE.rglob("*") if path.is_file() and path.suffix != ".py"]
    left = [path for path in others if "__pycache__" not in path.parts]
    assert len(left) > 3
    assert [path for path in left if not any(path.match(pattern) for pattern in named["nonlocalseg"])] == []


def test_every_test_file_has_a_name_of_its_own():
    """pytest imports them by their bare names."""
    names = [path.stem for path in Path(__file__).parent.rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))
