"""What stands in a .pt2: arrays and a graph of arithmetic, and nothing that torch would run as Python while it loads it.

torch.export unpickles sample inputs and some weights, evaluates expressions, and writes names into code. Files are
therefore written without what they can do without (`tidied`), and read only where all that is left is plain (`checked`).
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

_GRAPH, _SAMPLES = "models/model.json", "data/sample_inputs/model.pt"
_CONFIGS = ("data/weights/model_weights_config.json", "data/constants/model_constants_config.json")
_KNOWN = re.compile(
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)|data/weights/weight_\d+|"
    rf"data/constants/tensor_\d+|extra/\w+|{'|'.join(map(re.escape, (_GRAPH, _SAMPLES, *_CONFIGS)))}"
)
_OPERATION = re.compile(
    r"torch\.ops\.aten\.(__(and|or|xor|lshift|rshift)__|(?!__|from_file\.|save\.)[a-z_]\w*)\.[A-Za-z]\w*|"
    r"_operator\.(add|sub|mul|floordiv|truediv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_|getitem)|"
    r"math\.(ceil|floor|trunc)|torch\.sym_\w+"
)
_FUNCTIONS = {
    *("Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Mod", "Max", "Min", "Abs", "Piecewise"),
    *("FloorDiv", "CleanDiv", "PythonMod", "ModularIndexing", "Where", "CeilDiv", "CeilToInt", "FloorToInt"),
    *("TruncToInt", "TruncToFloat", "RoundToInt", "ToFloat", "IntTrueDiv", "FloatTrueDiv", "FloatPow", "PowByNatural"),
    *(
        "IsNonOverlappingAndDenseIndicator",
        "Identity",
        "LShift",
        "RShift",
        "BitwiseFn_bitwise_and",
        "OpaqueUnaryFn_sqrt",
    ),
    *("Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not", "Equality", "Unequality", "StrictLessThan", "LessThan"),
    *("StrictGreaterThan", "GreaterThan", "true", "false"),
}
_EXPRESSION = (ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword, ast.UnaryOp, ast.USub)
_SHUT = {"as_operator", "as_graph", "as_custom_obj", "as_nested_tensors"}
_TREES = {None, "builtins.tuple", "builtins.list", "builtins.dict"}


def tidied(path: Path, extra: Mapping[str, str]) -> None:
    """Take sample inputs and what only debuggers read, such as paths on this machine, out of a file that torch.export
    wrote, and put texts in by their names."""
    root, members = _members(path.read_bytes())
    graph = json.loads(members[_GRAPH])
    for holder in _holders(graph):
        holder["metadata"] = {}
    graph["guards_code"] = None
    members |= {_GRAPH: json.dumps(graph).encode(), _SAMPLES: b""}
    members |= {f"extra/{name}": text.encode() for name, text in extra.items()}
    path.write_bytes(_packed(root, members).getvalue())


def checked(path: Path) -> BytesIO:
    """A copy of the file for torch to load, packed anew, so that torch reads what was looked at here. Raises ValueError
    where anything in it is more than arrays and arithmetic."""
    try:
        root, members = _members(path.read_bytes())
        _check_graph(json.loads(members[_GRAPH]))
        for name in _CONFIGS:
            _check_arrays(json.loads(members[name]), members, name.rpartition("/")[0])
    except (BadZipFile, KeyError, TypeError, AttributeError, RecursionError, NotImplementedError) as error:
        raise ValueError(f"it is no file of this library ({type(error).__name__})") from None
    if members.get(_SAMPLES) != b"":
        raise ValueError("it holds sample inputs, which would be unpickled")
    return _packed(root, members)


def _members(content: bytes) -> tuple[str, dict[str, bytes]]:
    """The name of the folder in the archive, and what is in it by name."""
    with ZipFile(BytesIO(content)) as archive:
        listed = archive.infolist()
        root = listed[0].filename.partition("/")[0] if listed else ""
        found: dict[str, bytes] = {}
        for item in listed:
            name = item.filename.removeprefix(f"{root}/")
            if item.compress_type != ZIP_STORED or name in found or not _KNOWN.fullmatch(name):
                raise ValueError(f"it holds {name[:80]!r}, which no export writes")
            found[name] = archive.read(item)
    return root, found


def _packed(root: str, members: Mapping[str, bytes]) -> BytesIO:
    buffer = BytesIO()
    with ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"{root}/{name}", content)
    buffer.seek(0)
    return buffer


def _holders(content: object) -> Iterator[dict[str, Any]]:
    """Every mapping that has metadata, whose own are left out."""
    if isinstance(content, dict):
        if isinstance(content.get("metadata"), dict):
            yield content
        for name, item in content.items():
            yield from _holders(item) if name != "metadata" else ()
    elif isinstance(content, list):
        for item in content:
            yield from _holders(item)


# --- The graph --------------------------------------------------------------------------------------------------


def _check_graph(content: object, name: str = "") -> None:
    """ValueError for what torch might take for code. name: the entry that `content` stands under."""
    if name in _SHUT or (name in ("metadata", "guards_code", "treespec_namedtuple_fields") and content):
        raise ValueError(f"it holds {name}, which no export writes")
    if isinstance(content, dict):
        for key, item in content.items():
            _check_text(key, "a key")
            _check_graph(item, key)
    elif isinstance(content, list):
        for item in content:
            _check_graph(item, name)
    elif isinstance(content, str):
        _check_text(content, name)


def _check_text(text: str, name: str) -> None:
    if name == "expr_str":
        plain = is_arithmetic(text)
    elif name == "target":
        plain = _OPERATION.fullmatch(text) is not None
    elif name in ("in_spec", "out_spec"):
        plain = _is_tree(json.loads(text)[1])
    elif name in ("name", "as_name"):
        plain = text.isidentifier()
    else:
        plain = re.fullmatch(r"[\w .,:+*>/-]*", text) is not None
    if not plain:
        raise ValueError(f"{name} {text[:80]!r} is more than arithmetic")


def is_arithmetic(text: str) -> bool:
    """Calls of known functions of numbers and of symbols, whose names are quoted."""
    try:
        nodes = [*ast.walk(ast.parse(text, mode="eval"))]
    except (SyntaxError, MemoryError, RecursionError):
        return False
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    texts = [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    return (
        all(isinstance(node, _EXPRESSION) for node in nodes)
        and all(isinstance(call.func, ast.Name) for call in calls)
        and all(node.id in _FUNCTIONS for node in nodes if isinstance(node, ast.Name))
        and all(item.isidentifier() for item in texts)
    )


def _is_tree(content: Mapping[str, Any]) -> bool:
    """Nested tuples, lists and dictionaries."""
    context = content["context"]
    plain = context is None or re.fullmatch(r'null|\[("\w+"(, "\w+")*)?\]', context) is not None
    return plain and content["type"] in _TREES and all(_is_tree(child) for child in content["children_spec"])


def _check_arrays(content: Mapping[str, Any], members: Mapping[str, bytes], folder: str) -> None:
    """ValueError where an array is a pickle, or larger than what is stored of it."""
    for item in content["config"].values():
        path, sizes = item["path_name"], [side["as_int"] for side in item["tensor_meta"]["sizes"]]
        if item["use_pickle"] is not False or not re.fullmatch(r"(weight|tensor)_\d+", path):
            raise ValueError(f"{str(path)[:80]!r} is more than an array")
        if not members[f"{folder}/{path}"] and 0 not in sizes:
            raise ValueError(f"{path} is empty where {sizes} numbers should be")
