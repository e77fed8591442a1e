"""mmsegmentation's config files as values: read without running them, and written.

A file is a list of assignments. Their literals, calls of dict() and names assigned before are read; whatever else stands
there is never executed, and is refused only where it is needed.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping

from typing_extensions import TypeIs

LARGEST = 4_000_000
"""Characters of a config; the largest of mmsegmentation's has under 50,000."""


class Unread:
    """In the place of a value that is no literal."""

    def __init__(self, line: int, source: str) -> None:
        self.line, self.source = line, source

    def __repr__(self) -> str:
        return f"`{self.source[:60]}` of line {self.line}, which is no literal"


def parse(text: str) -> dict[str, object]:
    """What a config assigns, by name. Raises ValueError in one line for a text that is no such file."""
    if len(text) > LARGEST:
        raise ValueError(f"the config has {len(text)} characters; no config of mmsegmentation is that long")
    try:
        tree = ast.parse(text)
        found: dict[str, object] = {}
        for statement in tree.body:
            for name, value in _assigned(statement):
                found[name] = _value(value, found)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"the config cannot be read ({type(error).__name__}): it is no config file") from None
    return found


def write(config: Mapping[str, object]) -> str:
    """The text that `parse` reads back, and that mmengine's Config.fromfile reads."""
    return "".join(f"{name} = {_written(value, 0)}\n" for name, value in config.items())


def _assigned(statement: ast.stmt) -> list[tuple[str, ast.expr]]:
    if isinstance(statement, ast.Assign):
        return [(target.id, statement.value) for target in statement.targets if isinstance(target, ast.Name)]
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value is not None:
        return [(statement.target.id, statement.value)]
    return []


def _value(node: ast.expr, known: Mapping[str, object]) -> object:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name) and node.id in known:
        return known[node.id]
    if isinstance(node, (ast.List, ast.Tuple)):
        items = [_value(item, known) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    if isinstance(node, ast.Dict) and all(key is not None for key in node.keys):
        keys = [_value(key, known) for key in node.keys if key is not None]
        if all(isinstance(key, (str, int, float, bool, type(None))) for key in keys):
            return dict(zip(keys, (_value(value, known) for value in node.values), strict=True))
    if _is_dict_call(node):
        return {str(keyword.arg): _value(keyword.value, known) for keyword in node.keywords}
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        number = _value(node.operand, known)
        if isinstance(number, (int, float)):
            return -number if isinstance(node.op, ast.USub) else number
    return Unread(node.lineno, ast.unparse(node))


def _is_dict_call(node: ast.expr) -> TypeIs[ast.Call]:
    """dict(name=value, ...), without positional arguments and **."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or node.func.id != "dict":
        return False
    return not node.args and all(keyword.arg is not None for keyword in node.keywords)


def _written(value: object, depth: int) -> str:
    if isinstance(value, Mapping):
        indent = "    " * (depth + 1)
        lines = [f"{indent}{name}={_written(item, depth + 1)},\n" for name, item in value.items()]
        return f"dict(\n{''.join(lines)}{'    ' * depth})" if lines else "dict()"
    if isinstance(value, list):
        return f"[{', '.join(_written(item, depth) for item in value)}]"
    if isinstance(value, tuple):
        return f"({''.join(_written(item, depth) + ', ' for item in value).rstrip()})"
    return repr(value)
