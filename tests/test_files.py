"""Whole files or none, readable by whom the umask lets, and the check of a folder before work starts."""

from __future__ import annotations

import csv
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from nonlocalseg.files import append_text, check_folder, write_rows, write_text, writing

UNDER_UMASK = """
import os, sys
os.umask(0o027)
from nonlocalseg.files import write_text
write_text(sys.argv[1], "one")
os.umask(0o077)  # a later change counts as well
write_text(sys.argv[2], "two")
"""


def test_nothing_is_left_of_what_fails(tmp_path: Path) -> None:
    path = write_text(tmp_path / "new" / "a.txt", "first")
    with pytest.raises(ZeroDivisionError, match="zero"), writing(path) as temporary:
        temporary.write_text(f"half{1 // 0}")
    assert path.read_text() == "first"
    assert os.listdir(path.parent) == ["a.txt"]
    with writing(path) as temporary:
        assert (temporary.parent, temporary.suffix) == (path.parent, ".txt")
        temporary.write_text("second")
    assert path.read_text() == "second"


@pytest.fixture
def full_disk():
    """No file may grow beyond a kilobyte."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path: Path, full_disk: None) -> None:
    path = write_text(tmp_path / "a.txt", "first\n")
    for write in (write_text, append_text):
        with pytest.raises(OSError, match="File too large") as error:
            write(path, "long" * 1000)
        assert error.value.filename == str(path)
        assert path.read_text() == "first\n"
        assert os.listdir(tmp_path) == ["a.txt"]
    append_text(path, "second\n")
    assert path.read_text() == "first\nsecond\n"


def test_an_error_of_another_file_keeps_its_name(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing") as error, writing(tmp_path / "a.txt"):
        (tmp_path / "missing").read_text()
    assert error.value.filename == str(tmp_path / "missing")


def test_the_umask_decides_who_may_read(tmp_path: Path) -> None:
    paths = [tmp_path / "a.txt", tmp_path / "b.txt"]
    subprocess.run([sys.executable, "-c", UNDER_UMASK, *map(str, paths)], check=True)
    assert [path.stat().st_mode & 0o777 for path in paths] == [0o640, 0o600]


def test_rows(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "rows.csv", [{"a": 1, "b": "x, y"}, {"a": None, "b": "z"}])
    with path.open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"a": "1", "b": "x, y"}, {"a": "", "b": "z"}]


def test_check_folder(tmp_path: Path) -> None:
    assert check_folder(tmp_path / "a" / "b") == tmp_path / "a" / "b"
    assert not (tmp_path / "a").exists()
    write_text(tmp_path / "file", "")
    with pytest.raises(ValueError, match=r"^--out: .*file is a file, so .* cannot be a folder; choose another --out"):
        check_folder(tmp_path / "file" / "below")
