"""Lists, Parquet, shards and addresses: every image in them once, under a name of its own, the same each time."""

from __future__ import annotations

import csv
import io
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from nonlocalseg import images
from nonlocalseg.inference.batch import Labeller
from nonlocalseg.inference.sources import Listed, find_inputs
from nonlocalseg.view import WHOLE


def picture(value: int) -> np.ndarray:
    return np.full((16, 20, 3), value, np.uint8)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, name in enumerate(("a.png", "deep/b.png", "deep/c.jpg")):
        images.write_image(tmp_path / "photos" / name, picture(100 + number))
    (tmp_path / "photos/notes.md").write_text("nothing")
    return tmp_path / "photos"


@pytest.fixture
def server(photos: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *anything: object) -> None:
            pass

    found = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(photos)))
    threading.Thread(target=found.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{found.server_port}"
    found.shutdown()
    found.server_close()


def names(*paths: object, column: str | None = None) -> list[str]:
    return [item.name for item in find_inputs(map(str, paths), Path("out"), column).listed]


def values(*paths: object, column: str | None = None) -> list[int]:
    """The colour of each picture, read as the model's would be."""
    found = []
    for item in find_inputs(map(str, paths), Path("out"), column).listed:
        with item.fetched() as path:
            found.append(int(images.read_image(path)[0, 0, 0]))
    return found


def test_lists_of_paths_and_addresses(photos, server, tmp_path):
    text = tmp_path / "list.txt"
    text.write_text(
        f"# mine\n\nphotos/a.png\n{photos}/deep/b.png\n../{tmp_path.name}/photos/a.png\n{server}/deep/c.jpg\n"
    )
    host = server.removeprefix("http://")
    assert names(text) == ["photos/a.png", "photos/deep/b.png", f"http/{host}/deep/c.jpg"]
    assert values(text) == [100, 101, 102]
    table = tmp_path / "deep/list.csv"
    table.parent.mkdir()
    table.write_text('id,url,path\n1,x,../photos/a.png\n2,y,"../photos/deep/b.png"\n3,z,\n')
    whole = str(tmp_path).strip("/")
    assert names(table) == [f"{whole}/photos/a.png", f"{whole}/photos/deep/b.png"]
    assert values(table, column="path") == [100, 101]
    table.with_suffix(".tsv").write_text("score\tfile\n1\t../photos/deep/c.jpg\n")
    assert values(table.with_suffix(".tsv")) == [102]


def test_names_of_a_list_depend_on_nothing_else_in_it(photos, tmp_path):
    text = tmp_path / "list.txt"
    text.write_text("photos/deep/b.png\n")
    before = names(text)
    text.write_text("photos/a.png\nphotos/deep/b.png\n/elsewhere/x.png\n")
    assert names(text) == ["photos/a.png", *before, "elsewhere/x.png"]


@pytest.mark.parametrize("form", ["paths", "bytes", "hugging-face"])
def test_parquet(photos, tmp_path, form):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    files = sorted(photos.rglob("*.[pj]*g"))
    stored = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    column = {"paths": [str(file) for file in files], "bytes": [one["bytes"] for one in stored], "hugging-face": stored}
    path = tmp_path / "shard-0.parquet"
    parquet.write_table(arrow.table({"image": column[form], "label": [1, 2, 3]}), path, row_group_size=2)
    assert values(path) == values(path, column="image") == [100, 101, 102]
    assert (
        names(path)
        == {
            "paths": ["photos/a.png", "photos/deep/b.png", "photos/deep/c.jpg"],
            "bytes": [f"shard-0.parquet/00000{number}" for number in range(3)],
            "hugging-face": ["shard-0.parquet/a.png", "shard-0.parquet/b.png", "shard-0.parquet/c.jpg"],
        }[form]
    )
    with pytest.raises(ValueError, match=r"column label holds int64; name one of paths"):
        names(path, column="label")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"shard-0\.parquet: a damaged Parquet file"):
        names(path)


def shard(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            archive.addfile(about, io.BytesIO(content))
    return path


def test_shards(photos, server, tmp_path):
    content = {
        f"{number:04}.{suffix}": (photos / name).read_bytes()
        for number, (suffix, name) in enumerate([("png", "a.png"), ("jpg", "deep/c.jpg")])
    }
    shard(photos / "s-0.tar", {"0000.json": b"{}", **content, "0000.cls": b"1"})
    shard(photos / "s-1.tar", {"../../../etc/x.png": content["0000.png"], "/x.png": content["0000.png"]})
    assert names(photos / "s-*.tar") == [
        "s-0.tar/0000.png",
        "s-0.tar/0001.jpg",
        "s-1.tar/etc/x.png",
        "s-1.tar/x.png",
    ]
    assert values(photos / "s-*.tar") == [100, 102, 100, 100]
    with pytest.raises(ConnectionError, match=r"s-0\.tar: cannot be read .*range"):  # this simple server sends no parts
        values(f"{server}/s-0.tar")
    fsspec.filesystem("memory").pipe("/shards/s-0.tar", (photos / "s-0.tar").read_bytes())
    assert values("memory://shards/s-*.tar") == [100, 102]
    fsspec.filesystem("memory").rm("/shards", recursive=True)
    assert [item.input for item in find_inputs([str(photos / "s-0.tar")], tmp_path).listed] == [
        f"{photos}/s-0.tar#0000.png",
        f"{photos}/s-0.tar#0001.jpg",
    ]
    (photos / "cut.tar").write_bytes(b"nothing" * 200)
    with pytest.raises(ValueError, match=r"cut\.tar: no whole, plain tar archive"):
        names(photos / "cut.tar")


def test_addresses(photos, server):
    store = fsspec.filesystem("memory")
    for path in photos.rglob("*.[pj]*g"):
        store.pipe(f"/bucket/{path.relative_to(photos).as_posix()}", path.read_bytes())
    store.pipe("/bucket/notes.md", b"nothing")
    store.pipe("/bucket/list.csv", b"url\ndeep/b.png\nmemory://bucket/a.png\n")
    try:
        assert names("memory://bucket") == names("memory://bucket/") == ["a.png", "deep/b.png", "deep/c.jpg"]
        assert values("memory://bucket") == [100, 101, 102]
        assert names("memory://bucket/deep/*.png") == names("memory://bucket/deep/b.png") == ["b.png"]
        assert values("memory://bucket/list.csv") == [101, 100]
        assert names("memory://bucket/list.csv") == ["deep/b.png", "memory/bucket/a.png"]
        first = find_inputs(["memory://bucket/a.png"], Path("out")).listed[0]
        store.pipe("/bucket/a.png", (photos / "deep/b.png").read_bytes())
        assert find_inputs(["memory://bucket/a.png"], Path("out")).listed[0].stamp != first.stamp
    finally:
        store.rm("/bucket", recursive=True)
    assert names(f"file://{photos}") == ["a.png", "deep/b.png", "deep/c.jpg"]
    assert values(f"file://{photos}/deep") == [101, 102]
    assert values(f"{server}/a.png") == [100]
    with pytest.raises(FileNotFoundError, match="memory://nowhere: nothing there, or no images"):
        names("memory://nowhere")
    with pytest.raises(ValueError, match="nonsense://x: Protocol not known"):
        names("nonsense://x")


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/x.png", "memory://nowhere/x.png"])
def test_an_address_that_cannot_be_had_is_one_failure(address):
    item = Listed(address, "x.png", address)
    with pytest.raises((FileNotFoundError, ConnectionError), match=f"{address}"), item.fetched():
        pass
    found = Labeller(lambda images: {}, WHOLE, torch.device("cpu")).label(item, Path("out"))
    assert found.failed
    assert found.reason.startswith(address)


def test_names_never_leave_the_folder_and_never_meet(photos, tmp_path):
    text = tmp_path / "list.txt"
    text.write_text("http://h/../../x.png\nhttp://h/x.png?size=1\nhttp://h//x.png\nC:\\photos\\..\\x.png\n/../x.PNG\n")
    found = names(text)
    assert found[:3] == ["http/h/x.png", "http/h/x.png?size=1", "http/h/x~2.png"]
    assert not any(part in ("", ".", "..") for name in found for part in name.split("/"))
    assert len({name.casefold() for name in found}) == len(found)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.txt", b"# nothing\n", "names no image"),
        ("empty.csv", b"image\n", "names no image"),
        (
            "other.csv",
            b"name,score\na,1\n",
            r"which of its columns \(name, score\) holds the images\? Say so with --column",
        ),
        ("bytes.csv", b"image\n\xff\xfe\n", "byte 6 is no UTF-8 text"),
    ],
)
def test_lists_that_say_nothing(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: {message}"):
        names(tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"no\.csv: no such file"):
        names(tmp_path / "no.csv")


def test_a_column_that_is_not_there(tmp_path):
    (tmp_path / "list.csv").write_text("photo\na.png\n")
    with pytest.raises(ValueError, match=r"column of .*list\.csv.*photo"):
        names(tmp_path / "list.csv", column="photos")
    assert names(tmp_path / "list.csv", column="photo") == ["a.png"]


def test_what_predict_left_can_be_given_to_it(photos, tmp_path):
    with (tmp_path / "manifest.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerows([("input", "output"), (f"{photos}/a.png", "index/a.png.png")])
    assert values(tmp_path / "manifest.csv") == [100]
