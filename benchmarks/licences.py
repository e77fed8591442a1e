"""The licences of everything that an installation with all extras brings, by what the installed packages say themselves.

    python -m benchmarks.licences --write

Writes docs/dependencies.md. Exit code 1 where a licence is unknown, or does not go with Apache-2.0.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "dependencies.md"
_PERMISSIVE = (
    r"MIT( License)?|MIT-CMU|MIT-0|0BSD|(BSD|3-Clause BSD|BSD-[234]-Clause)( License)?|Zlib|Unlicense|CC0-1\.0"
)
_MORE = (
    r"ISC( License \(ISCL\))?|BSL-1\.0|Apache(-| )2\.0( WITH LLVM-exception)?|Apache Software License|PSF-2\.0"
    r"|Python Software Foundation License|HPND"
)
ALLOWED: dict[str, str] = {
    "permissive": f"{_PERMISSIVE}|{_MORE}",
    "weak copyleft": r"MPL-2\.0|Mozilla Public License 2\.0 \(MPL 2\.0\)",
    "NVIDIA's": r"LicenseRef-NVIDIA-Proprietary|NVIDIA Proprietary Software",
}
"""Kind -> the names of its licences."""
MEANING = {
    "permissive": "used and passed on with notice of the authors",
    "weak copyleft": "changes to their own files must stay open; we change none",
    "NVIDIA's": "libraries of CUDA, which torch's wheels for GPUs ask for; torch's wheels for CPUs do not",
}
SAID_ELSEWHERE = {"cuda-toolkit": "LicenseRef-NVIDIA-Proprietary"}
"""Packages whose metadata say nothing."""
NEVER = ("cityscapesscripts", "pyquaternion")
"""Installed by `make` for one test, and asked for by nothing."""


@dataclass(frozen=True)
class Dependency:
    name: str
    version: str
    licence: str
    kind: str | None
    extra: str


def dependencies() -> list[Dependency]:
    """All that is installed here of what pyproject.toml asks for, and of what that asks for; by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {"": project["dependencies"], **project["optional-dependencies"]}
    found: dict[str, Dependency] = {}
    for extra, listed in wanted.items():
        if extra != "all":
            for text in listed:
                for one in _below(Requirement(text), extra):
                    found.setdefault(one.name, one)
    return sorted(found.values(), key=lambda one: one.name)


def _below(asked: Requirement, extra: str) -> Iterator[Dependency]:
    left, seen = [(asked, "")], set()
    while left:
        one, of = left.pop()
        name = canonicalize_name(one.name)
        if name == "nonlocalseg" or (one.marker is not None and not one.marker.evaluate({"extra": of})):
            continue
        for within in ("", *sorted(one.extras)):
            if (name, within) in seen:
                continue
            seen.add((name, within))
            try:
                about = metadata.distribution(name)
            except metadata.PackageNotFoundError:
                continue  # of another platform
            licence = SAID_ELSEWHERE.get(name) or licence_of(about.metadata)
            yield Dependency(name, about.version, licence, kind_of(licence), extra)
            left += [(Requirement(text), within) for text in about.requires or ()]


def licence_of(about: metadata.PackageMetadata) -> str:
    """What a package says: the expression, else the classifiers, else the first line of its text."""
    if expression := about.get("License-Expression"):
        return expression
    classified = [item for item in about.get_all("Classifier") or () if item.startswith("License ::")]
    named = [item.rpartition(" :: ")[2] for item in classified if item.count("::") > 1 or "OSI" not in item]
    return "; ".join(named) or (about.get("License") or "").strip().partition("\n")[0][:60]


def kind_of(licence: str) -> str | None:
    """The strictest kind among the parts of a licence, of alternatives the mildest; None where one is not allowed."""
    order = list(ALLOWED)
    worst = 0
    for part in re.split(r" AND |; ", re.sub(r"[()]", "", licence) if " AND (" in licence else licence):
        kinds = [
            place for one in part.split(" OR ") for place, kind in enumerate(order) if re.fullmatch(ALLOWED[kind], one)
        ]
        if not kinds:
            return None
        worst = max(worst, min(kinds))
    return order[worst]


def page(found: list[Dependency]) -> str:
    lines = [
        "# Dependencies and their licences",
        "",
        "Written by `python -m benchmarks.licences --write` from what the packages say of themselves: everything that",
        "`pip install '.[all,dev]' --constraint constraints.txt` brings on Linux, direct and indirect. nonlocalseg itself is",
        "Apache-2.0; nothing here forbids that, and a test refuses a licence that is not known to go with it.",
        "",
    ]
    lines += [f"* {kind}: {MEANING[kind]} ({sum(one.kind == kind for one in found)} packages)" for kind in ALLOWED]
    lines += [
        "",
        f"For one test `make` also installs {' and '.join(NEVER)}, which nothing here needs; the first is under the terms of",
        "Cityscapes, not for commercial use.",
        "",
        "| package | version | licence | kind | for |",
        "|---|---|---|---|---|",
    ]
    rows = (f"| {d.name} | {d.version} | {d.licence} | {d.kind or 'NOT ALLOWED'} | {d.extra or '-'} |" for d in found)
    return "\n".join([*lines, *rows]) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write docs/dependencies.md")
    found = dependencies()
    if parser.parse_args().write:
        PAGE.write_text(page(found), encoding="utf-8")
    wrong = [one for one in found if one.kind is None]
    print(
        f"{len(found)} packages; not allowed, or unknown: {', '.join(f'{d.name} ({d.licence})' for d in wrong) or 'none'}"
    )
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
