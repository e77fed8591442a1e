"""Seeded changes of what files hold: their bytes, the values in JSON, YAML and XML, the parts of PNG, zip and safetensors."""

from __future__ import annotations

import copy
import io
import json
import random
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Change = Callable[[bytes, random.Random], bytes]

CANARY = "canary"
"""Part of the names that no reader may open or make: what is hostile here asks for them."""
ODD: list[Any] = [
    *(None, True, False, -1, 0, 1, 3, 255, 256, 65_536, 50_000, 2**31, 2**32, 2**63, 10**9, 10**30, -(10**30)),
    *(0.5, -0.5, 1.5, 1e300, 1e308, float("nan"), float("inf"), float("-inf")),
    *("", "x", "none", "12", "1e3", "ü", "\0", "\x1b]0;x\x07", "\x1b[31m", "\u202e", "\ud800", "a\nb", "a" * 5000),
    *("../..", "../../" + CANARY, "/tmp/" + CANARY, "C:\\" + CANARY, "file:///tmp/" + CANARY, "http://127.0.0.1:9/x"),
    *("!!python/object/apply:os.system [touch /tmp/" + CANARY + "]", "${HOME}", "%s%n", "{0.__class__}", "~"),
    *([], [1], [[]], [None], [None, None], [10**9, 10**9], ["a"] * 5, [[0, 0, 5, 5, 1e300, 7]], [1, "a"]),
    *({}, {"a": 1}, {"type": 3}, {"size": [50_000, 50_000], "counts": [2_500_000_000]}),
]
"""What stands in the place of a value."""
PIECES = (
    *(b"\xff", b"\0", b"[" * 500, b"{" * 500, b"99999999999", b"9" * 5000, b"\xe2\x80\xae", b"&a ", b"*a", b": ", b"!"),
    *(b"!!python/name:os.system ", b"\n", b"\r", b"-", b"NaN", b"1e999", b"<!--", b"]]>", b"<a>" * 300, b"%", b"../"),
)
"""What stands somewhere between the bytes."""
NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)


def changed_bytes(content: bytes, drawn: random.Random) -> bytes:
    """One to six places changed, removed, repeated or cut off."""
    found = bytearray(content)
    for _ in range(drawn.choice((1, 1, 2, 6))):
        place, kind = drawn.randrange(len(found)), drawn.randrange(8)
        if kind == 0:
            found[place] = drawn.randrange(256)
        elif kind == 1:
            found[place] ^= 1 << drawn.randrange(8)
        elif kind == 2:
            del found[place : place + drawn.randrange(1, 12)]
        elif kind == 3:
            found[place:place] = drawn.choice(PIECES)
        elif kind == 4:
            found[place:place] = found[place : place + 30]
        elif kind == 5:
            other = drawn.randrange(len(found))
            found[place : place + 16] = found[other : other + 16]
        elif kind == 6:
            form = drawn.choice(("<H", ">H", "<I", ">I", "<Q", ">Q"))
            number = struct.pack(form, drawn.choice(NUMBERS) & (256 ** struct.calcsize(form) - 1))
            found[place : place + len(number)] = number
        else:
            found = found[: max(1, place)]
        found = found or bytearray(b" ")
    return bytes(found)


def changed_header(content: bytes, drawn: random.Random) -> bytes:
    """As `changed_bytes`, in the first 200 bytes."""
    return changed_bytes(content[:200], drawn) + content[200:]


def changed_text(content: bytes, drawn: random.Random) -> bytes:
    """Numbers, words, quoted texts and lines changed."""
    text = content.decode(errors="surrogateescape")
    for _ in range(drawn.choice((1, 1, 2, 4))):
        lines = text.splitlines(keepends=True) or [""]
        kind = drawn.randrange(5)
        if kind == 0:
            lines.insert(drawn.randrange(len(lines) + 1), drawn.choice(lines))
            text = "".join(lines)
        elif kind == 1:
            del lines[drawn.randrange(len(lines))]
            text = "".join(lines)
        else:
            pattern = (r"-?\d+\.?\d*", r"[A-Za-z_]\w*", r'"[^"]*"')[kind - 2]
            if places := [*re.finditer(pattern, text)]:
                place, odd = drawn.choice(places), str(drawn.choice(ODD))
                text = text[: place.start()] + (f'"{odd}"' if kind == 4 else odd) + text[place.end() :]
    return text.encode(errors="surrogatepass") or b" "


def nodes(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in nested lists and mappings: what holds it, and its name or number there."""
    keys = list(content) if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else ()
    for key in keys:
        yield content, key
        yield from nodes(content[key])


def changed_tree(content: Any, drawn: random.Random, odd: Sequence[Any] = ODD) -> Any:
    """A copy with one or two values replaced, moved, renamed or left out."""
    found = copy.deepcopy(content)
    for _ in range(drawn.choice((1, 1, 2))):
        places = [*nodes(found)]
        if not places:
            break
        inside, key = drawn.choice(places)
        kind = drawn.random()
        if kind < 0.15:
            del inside[key]
        elif kind < 0.25 and isinstance(inside, dict):
            inside[drawn.choice(("unknown", "", *inside))] = inside.pop(key)
        elif kind < 0.3 and isinstance(inside, list):
            inside.extend([copy.deepcopy(inside[key])] * drawn.choice((1, 3, 2000)))
        elif kind < 0.4:
            other, name = drawn.choice(places)
            inside[key] = copy.deepcopy(other.get(name) if isinstance(other, dict) else [*other, None][0])
        else:
            inside[key] = copy.deepcopy(drawn.choice(odd))
    return found


def changed_json(content: bytes, drawn: random.Random) -> bytes:
    """Values mostly, now and then bytes."""
    if drawn.random() < 0.25:
        return changed_bytes(content, drawn)
    if drawn.random() < 0.03:
        return drawn.choice((b"[" * 100_000, b"null", b"7", b'{"a":' * 50_000, b'"' + b"a" * 10**6 + b'"'))
    return json.dumps(changed_tree(json.loads(content), drawn)).encode()


def changed_xml(content: bytes, drawn: random.Random) -> bytes:
    """Attributes, text and tags; entities that would fill memory or read files."""
    if drawn.random() < 0.1:
        body = content[content.index(b"?>") + 2 :] if content.startswith(b"<?xml") else content
        levels = "".join(f'<!ENTITY b{n} "{f"&b{n - 1};" * 10}">' for n in range(1, 10))
        outside = f'<!ENTITY b9 SYSTEM "file:///tmp/{CANARY}">'
        kind = drawn.choice((f'<!ENTITY b0 "{"x" * 50}">{levels}', outside))
        root = re.search(rb"<(\w+)", body)
        name = root[1].decode() if root else "a"
        return f"<!DOCTYPE {name} [{kind}]>".encode() + body.replace(b"</", b"&b9;</", 1)
    return changed_bytes(content, drawn) if drawn.random() < 0.3 else changed_text(content, drawn)


# --- Containers: what is inside is changed, and checksums made to fit, so that readers get that far ------------


def changed_png(content: bytes, drawn: random.Random) -> bytes:
    """A chunk of a PNG changed, removed or repeated, with its checksum."""
    chunks, place = [], 8
    while place + 12 <= len(content):
        (length,) = struct.unpack(">I", content[place : place + 4])
        chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
        place += 12 + length
    for _ in range(drawn.choice((1, 1, 2))):
        number = drawn.randrange(len(chunks))
        kind, body = chunks[number]
        what = drawn.random()
        if what < 0.5 and body:
            if kind == b"IDAT" and drawn.random() < 0.5:
                body = zlib.compress(changed_bytes(_unpacked(body), drawn))
            else:
                body = changed_bytes(body, drawn)
            chunks[number] = kind, body
        elif what < 0.6:
            chunks.insert(drawn.randrange(len(chunks)), chunks[number])
        elif what < 0.7:
            del chunks[number]
        elif what < 0.85:
            many = zlib.compress(b"\0" * 30_000_000)
            text = drawn.choice((b"zTXt", b"iCCP", b"iTXt"))
            start = b"a\0\0" if text != b"iTXt" else b"a\0\1\0\0\0"
            chunks.insert(1, (text, start + many))
        else:
            sides = struct.pack(">II", drawn.choice((1, 0, 20_000, 2**31 - 1)), drawn.choice((1, 0, 6_000, 2**31 - 1)))
            chunks = [(name, sides + data[8:] if name == b"IHDR" else data) for name, data in chunks]
        chunks = chunks or [(b"IEND", b"")]
    packed = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return content[:8] + b"".join(packed)


def _unpacked(body: bytes) -> bytes:
    """What a chunk holds, as far as it can be read: it may have been changed before."""
    try:
        return zlib.decompressobj().decompress(body) or b" "
    except zlib.error:
        return body


def changed_safetensors(content: bytes, drawn: random.Random) -> bytes:
    """The header's names, types, shapes and places, or bytes anywhere."""
    if drawn.random() < 0.3:
        return changed_bytes(content, drawn) if drawn.random() < 0.5 else changed_header(content, drawn)
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    kinds = ["F64", "BF16", "F8_E4M3", "I64", "BOOL", "U8", "F4", "C64", [0, 2**40], [2**62, 2**62], [0], [1, 0]]
    changed = json.dumps(changed_tree(header, drawn, [*ODD, *kinds])).encode()
    return struct.pack("<Q", len(changed)) + changed + content[8 + length :]


def changed_zip(inside: Callable[[str], Change] = lambda _: changed_bytes) -> Change:
    """A change of a member of a zip archive by `inside` of its name, or of the archive's own bytes."""

    def change(content: bytes, drawn: random.Random) -> bytes:
        if drawn.random() < 0.3:
            return changed_bytes(content, drawn)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {item.filename: (item.compress_type, archive.read(item)) for item in archive.infolist()}
        full = [name for name, (_, data) in members.items() if data]
        name = drawn.choice(full)
        kind = drawn.random()
        if kind < 0.7:
            members[name] = members[name][0], inside(name)(members[name][1], drawn)
        elif kind < 0.8:
            del members[name]
        elif kind < 0.9:
            members[name] = zipfile.ZIP_DEFLATED, bytes(30_000_000)
        else:
            members[drawn.choice((f"../{CANARY}", f"/tmp/{CANARY}"))] = members[name]
        return _zipped(members)

    return change


def _zipped(members: dict[str, tuple[int, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, (kind, data) in members.items():
            archive.writestr(name, data, compress_type=kind)
    return buffer.getvalue()


def changed_tar(content: bytes, drawn: random.Random) -> bytes:
    """Names, kinds and lengths of a tar's members, with their checksums, or bytes."""
    if drawn.random() < 0.3:
        return changed_bytes(content, drawn)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(content)) as old, tarfile.open(fileobj=buffer, mode="w") as new:
        members = old.getmembers()
        chosen = drawn.randrange(len(members))
        for number, member in enumerate(members):
            file = old.extractfile(member)
            data = b"" if file is None else file.read()
            if number == chosen:
                kind = drawn.randrange(4)
                if kind == 0:
                    member.name = drawn.choice([f"../{CANARY}.png", f"/tmp/{CANARY}.png", "a\x1b.png", "ü.png", ".png"])
                elif kind == 1:
                    member.type = drawn.choice((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE))
                    member.linkname = f"/tmp/{CANARY}"
                    data = b""
                else:
                    data = changed_bytes(data or b" ", drawn)
                member.size = len(data)
            new.addfile(member, io.BytesIO(data))
    changed = bytearray(buffer.getvalue())
    if drawn.random() < 0.3:  # a length in a header that is not the member's
        changed[124:136] = drawn.choice((b"77777777777\0", b"00000000000\0", b"\x80" + b"\xff" * 11, b"00000100000\0"))
        changed[148:156] = b"        "
        changed[148:156] = f"{sum(changed[:512]):06o}\0 ".encode()
    return bytes(changed)
