"""Files of the zoo: fetched whole from a server or a folder, kept with their digest; every attack leaves nothing."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace

import numpy as np
import pytest
from zoo.mirror import serving

from nonlocalseg import cli
from nonlocalseg.files import cache_folder
from nonlocalseg.images import write_image
from nonlocalseg.zoo import entries
from nonlocalseg.zoo.download import MIRROR, digest_of, fetch
from nonlocalseg.zoo.entries import all_entries

CONTENT = bytes(range(256)) * 500
LARGE = CONTENT * 192  # more than the downloader hands over at once
DIGEST = hashlib.sha256(CONTENT).hexdigest()
ENTRY = replace(
    all_entries()[0],
    address=f"https://nowhere.invalid/zoo/some/model-{DIGEST[:8]}.pth",
    digest=DIGEST[:8],
    megabytes=1,
)
PATH = f"/zoo/some/model-{DIGEST[:8]}.pth"


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NONLOCALSEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("time.sleep", lambda _: None)  # between attempts


def kept():
    return {path.name for path in (cache_folder() / "zoo").iterdir() if not path.name.endswith(".lock")}


def test_fetched_once_and_then_from_the_cache():
    with serving({PATH: CONTENT}) as server:
        path = fetch(ENTRY, server.address)
        assert path.read_bytes() == CONTENT
        assert fetch(ENTRY, server.address) == path
        assert len(server.asked) == 1
    assert kept() == {ENTRY.file, f"{ENTRY.file}.sha256"}
    assert (path.parent / f"{ENTRY.file}.sha256").read_text().strip() == DIGEST == digest_of(path)
    assert fetch(ENTRY) == path  # without a network


def test_a_dropped_connection_goes_on_where_it_stopped():
    entry = replace(ENTRY, digest=hashlib.sha256(LARGE).hexdigest()[:8])
    with serving({PATH: LARGE}, "drops once") as server:
        assert fetch(entry, server.address).read_bytes() == LARGE
        (_, first), (_, second) = server.asked
    assert first is None
    assert second is not None
    assert 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= len(LARGE) // 2


def test_an_interrupted_download_goes_on_where_it_stopped():
    part = cache_folder() / "zoo" / f".{ENTRY.file}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[:1000])
    with serving({PATH: CONTENT}) as server:
        assert fetch(ENTRY, server.address).read_bytes() == CONTENT
        assert server.asked == [(PATH, "bytes=1000-")]


@pytest.mark.parametrize(
    ("manner", "error", "words"),
    [
        ("wrong", ValueError, r"its SHA-256 begins with \w{8} and not with"),
        ("endless", ValueError, "sends more than 68 MB"),
        ("forgetful", ConnectionError, "peer closed connection"),
        ("missing", ConnectionError, "404"),
    ],
)
def test_every_attack_is_one_line_and_leaves_nothing(manner, error, words):
    with serving({PATH: CONTENT}, manner) as server, pytest.raises(error, match=words) as raised:
        fetch(ENTRY, server.address)
    assert "\n" not in str(raised.value)
    assert not kept()


@pytest.mark.parametrize(
    ("manner", "words"),
    [
        ("wrong", "its SHA-256 begins with"),
        ("truncated", "its SHA-256 begins with"),
        ("page", "its SHA-256 begins with"),
        ("empty", "its SHA-256 begins with"),
        ("endless", "sends more than 68 MB"),
        ("forgetful", "could not be downloaded"),
        ("missing", "404"),
        ("forbidden", "403"),
        ("redirects", "edirect"),
        ("sends elsewhere", "could not be downloaded"),
    ],
)
def test_every_attack_ends_the_command_in_one_line(manner, words, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(entries, "all_entries", lambda: (ENTRY,))
    photograph = write_image(tmp_path / "photo.png", np.zeros((8, 8, 3), np.uint8))
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    with serving({PATH: CONTENT}, manner) as server:
        given = ["predict", f"mmseg:{ENTRY.name}", str(photograph), "--out", str(tmp_path / "out")]
        assert cli.main(["--zoo-mirror", server.address, *given]) == 2
    lines = [line for line in re.split(r"[\r\n]+", capfd.readouterr().err) if line and "B/s" not in line]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert words in lines[0]
    left = {path for path in tmp_path.rglob("*") if path.is_file() and not path.name.endswith(".lock")}
    assert left == before


@pytest.mark.parametrize(
    "mirror", ["nowhere", "photo.png", "ftp://127.0.0.1/zoo", "http://", "http://[", "http://127.0.0.1:1"]
)
def test_a_mirror_that_is_none_ends_the_command_in_one_line(mirror, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(entries, "all_entries", lambda: (ENTRY,))
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "photo.png", np.zeros((8, 8, 3), np.uint8))
    given = ["predict", f"mmseg:{ENTRY.name}", "photo.png", "--out", "out"]
    assert cli.main(["--zoo-mirror", mirror, *given]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "--zoo-mirror" in line
    assert [path.name for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".lock"] == ["photo.png"]


def test_a_server_that_always_begins_anew_and_breaks_off_is_given_up():
    entry = replace(ENTRY, digest=hashlib.sha256(LARGE).hexdigest()[:8])
    with (
        serving({PATH: LARGE}, "forgetful") as server,
        pytest.raises(ValueError, match="breaks off again and again"),
    ):
        fetch(entry, server.address)
    assert not kept()


def test_nobody_there():
    with serving({}) as server:
        address = server.address
    with pytest.raises(ConnectionError, match="could not be downloaded") as raised:
        fetch(ENTRY, address)
    assert "--zoo-mirror" in str(raised.value)
    assert not kept()


@pytest.mark.parametrize("place", [ENTRY.file, ENTRY.path])
def test_a_folder_is_a_mirror(tmp_path, place):
    target = tmp_path / "mirror" / place
    target.parent.mkdir(parents=True)
    target.write_bytes(CONTENT)
    assert fetch(ENTRY, str(tmp_path / "mirror")).read_bytes() == CONTENT
    assert target.is_file()


def test_the_mirror_of_the_environment(tmp_path, monkeypatch):
    assert cli.MIRROR == MIRROR
    (tmp_path / ENTRY.file).write_bytes(CONTENT)
    monkeypatch.setenv(MIRROR, str(tmp_path))
    assert fetch(ENTRY).read_bytes() == CONTENT


def test_a_folder_without_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"--zoo-mirror: .* holds neither"):
        fetch(ENTRY, str(tmp_path))


@pytest.mark.parametrize("mirror", [None, "http://127.0.0.1:1"])
def test_offline_says_where_to_put_the_file(mirror, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=f"put the file {ENTRY.file} into .*zoo"):
        fetch(ENTRY, mirror)


def test_a_changed_file_in_the_cache_is_not_used(tmp_path):
    (tmp_path / ENTRY.file).write_bytes(CONTENT)
    path = fetch(ENTRY, str(tmp_path))
    path.write_bytes(CONTENT[:-1] + b"x")
    with pytest.raises(ValueError, match="has changed since it was downloaded"):
        fetch(ENTRY)


def test_a_file_with_another_digest_of_the_same_beginning_is_not_used(tmp_path):
    (tmp_path / ENTRY.file).write_bytes(CONTENT)
    path = fetch(ENTRY, str(tmp_path))
    (path.parent / f"{path.name}.sha256").write_text(ENTRY.digest + "0" * 56)
    with pytest.raises(ValueError, match="has changed"):
        fetch(ENTRY)
