"""What comes with an installation, and what leaves it: licences, no network at import, the same wheel twice."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.licences import PAGE, dependencies, kind_of

ROOT = Path(__file__).resolve().parents[1]
# Everything public is loaded, every verb is imported; whoever asks for a socket to another host, or for its address, is told.
IMPORTS = """
import importlib, sys
said = []
def hear(event, given):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "urllib.Request"):
        said.append((event, str(given)))
sys.addaudithook(hear)
import nonlocalseg as nls
missing = []
for name in nls.__all__ if "--break" not in sys.argv else ():
    try:
        getattr(nls, name)
    except ImportError as error:
        missing.append(str(error))
from nonlocalseg.cli import VERBS, find_verb
for name in VERBS if "--break" not in sys.argv else ():
    find_verb(name)
if "--break" in sys.argv:
    import socket
    try:
        socket.create_connection(("127.0.0.1", 9))
    except OSError:
        pass
print(missing, said)
sys.exit(bool(said))
"""


@pytest.mark.parametrize("words", [[], ["--break"]], ids=["whole", "broken"])
def test_importing_asks_no_network(words):
    done = subprocess.run([sys.executable, "-c", IMPORTS, *words], capture_output=True, text=True)
    assert done.returncode == len(words), done.stdout + done.stderr


def test_licences_go_with_ours():
    found = dependencies()
    assert {"torch", "numpy", "pydantic-core"} <= {one.name for one in found}
    assert [(one.name, one.licence) for one in found if one.kind is None] == []


@pytest.mark.parametrize(
    ("licence", "kind"),
    [
        ("MIT", "permissive"),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", "weak copyleft"),
        ("MIT OR GPL-3.0-only", "permissive"),
        ("GPL-3.0-only", None),
        ("MIT AND AGPL-3.0", None),
        ("GNU Lesser General Public License v3", None),
        ("", None),
    ],
)
def test_licences_are_told_apart(licence, kind):
    assert kind_of(licence) == kind


def test_the_page_names_every_pin():
    """Of all that constraints.txt pins, with that version."""
    rows = dict(re.findall(r"^\| ([\w.-]+) \| ([\w.]+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    pins = dict(
        re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    )
    pins = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pins.items()}
    assert rows
    assert {name: version for name, version in rows.items() if pins.get(name, version) != version} == {}
    assert "NOT ALLOWED" not in PAGE.read_text(encoding="utf-8")


def test_the_wheel_is_the_same_each_time(tmp_path):
    """From two folders, at two times: the date counts that SOURCE_DATE_EPOCH gives, as `make wheel` has it."""
    digests = []
    for number in range(2):
        tree = tmp_path / str(number)
        hidden = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / "src", tree / "src", ignore=hidden)
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, tree)
            os.utime(tree / name, (10**9 + number, 10**9 + number))
        words = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tree / "dist"), str(tree)]
        environment = {**os.environ, "SOURCE_DATE_EPOCH": "1760000000", "PYTHONHASHSEED": str(number)}
        subprocess.run(words, check=True, capture_output=True, env=environment, umask=0o022)
        (wheel,) = (tree / "dist").glob("*.whl")
        digests.append(hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert digests[0] == digests[1]
