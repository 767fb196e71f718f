"""Changes of what the headers of binary formats say; see `mutate`."""

import binascii
import gzip
import io
import json
import re
import struct
import zlib
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from tests.survival.mutate_text import changed, dumped

INTS = (0, 1, -1, 2, 3, 7, 8, 16, 127, 128, 255, 256, 1024, 32767, 32768, 65535, 2**24, 2**31 - 1,
        -(2**31), 2**31, 2**32 - 1, 2**62, 2**63 - 1)  # fmt: skip
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-45, 1e38, -1e38, float("inf"), float("-inf"), float("nan"), 0.5)


def _zero_gzip(size: int) -> bytes:
    """`size` zeros, in members of 16 MB, so that they are made in no time."""
    member = gzip.compress(bytes(2**24), 9, mtime=0)
    return member * (size // 2**24)


@cache
def _zero_zlib(size: int, level: int) -> bytes:
    return zlib.compress(bytes(size), level)


def nifti(path: Path, rng: Random) -> str | None:
    packed = path.name.endswith(".gz")
    try:
        content = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    except (OSError, EOFError, zlib.error):
        return None
    if len(content) < 352:
        return None
    fields = [("<i", 0), *[("<h", 40 + 2 * i) for i in range(8)] * 3, ("<h", 70), ("<h", 70),
    ("<h", 72),
              *[("<f", 76 + 4 * i) for i in range(8)], ("<f", 108), ("<f", 108), ("<f", 112),
              ("<f", 116), ("<B", 123), ("<h", 252), ("<h", 254),
              *[("<f", 256 + 4 * i) for i in range(6)], *[("<f", 280 + 4 * i) for i in range(12)],
              ("4s", 344), ("4s", 348)]  # fmt: skip
    told = []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        form, at = rng.choice(fields)
        new = _field(content, form, at, rng)
        told.append(f"{form}@{at}={new}")
    more = b""
    if packed and rng.random() < 0.1:
        size = rng.choice((2**26, 3 * 2**30, 6 * 2**30))
        more = _zero_gzip(size)
        told.append(f"and {size} zeros")
    path.write_bytes((gzip.compress(content, 1, mtime=0) + more) if packed else content)
    return " ".join(told)


def _field(content: bytearray, form: str, at: int, rng: Random) -> Any:
    if form.endswith("s"):
        new: Any = rng.choice((b"n+1\0", b"ni1\0", b"\0\0\0\0", b"\1\0\0\0", b"xxxx"))
    elif form[-1] in "fd":
        new = rng.choice(FLOATS)
    else:
        bits = 8 * struct.calcsize(form)
        new = rng.choice((*INTS, 4, 5, 512, 1280, 2304)) % 2**bits
        if form[-1].islower() and new >= 2 ** (bits - 1):
            new -= 2**bits
    struct.pack_into(form, content, at, new)
    return new


def metaimage(path: Path, rng: Random) -> str | None:
    content = path.read_bytes()
    end = content.find(b"ElementDataFile")
    if end < 0:
        return None
    stop = content.find(b"\n", end)
    head = content[:stop].decode("latin-1").split("\n")
    at = rng.randrange(len(head))
    key = head[at].split("=")[0]
    values = ("-1", "0", "1", "2", "3", "4", "1000000000", str(2**31), str(2**63), "9" * 400,
        "nan", "inf",
              "1e308", "True", "False", "", "x", "0 0", "1 1 1 1 1 1 1 1 1 1 1", "100000 100000",
              "65536 65536", "MET_DOUBLE", "MET_UCHAR_ARRAY", "MET_UCHAR", "MET_LONG_LONG",
              "MET_NONE",
              "/etc/passwd", "/dev/zero", "LOCAL", "LIST", "x%03d.raw 1 99999999 1", "../x.raw",
              path.name, "x" * 100_000, "4 4", "\xff", "-1 -1", "0.0 0.0")  # fmt: skip
    what = rng.choice(("value",) * 6 + ("delete", "twice", "swap"))
    new = rng.choice(values)
    if what == "value":
        head[at] = f"{key}= {new}"
    elif what == "delete":
        del head[at]
    elif what == "twice":
        head.insert(at, f"{key}= {new}")
    else:
        rng.shuffle(head)
    path.write_bytes("\n".join(head).encode("latin-1") + content[stop:])
    return f"{what} {key.strip()} = {new[:40]}"


def zlib_bomb(path: Path, rng: Random) -> str | None:
    size = rng.choice((2**26, 3 * 2**30, 6 * 2**30))
    packer = zlib.compressobj(9)
    start = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)
    adler = (size % 65521) << 16 | 1
    count = size // 2**24 - 1
    end = packer.flush()[:-4] + struct.pack(">I", adler)
    path.write_bytes(start + block * count + end)
    return f"{size} zeros"


def zlib_content(path: Path, rng: Random) -> str | None:
    content = zlib.decompress(path.read_bytes())
    new = rng.choice(
        (content[:-1], content + b"\0", b"", content * 2, content[: len(content) // 2])
    )
    path.write_bytes(zlib.compress(new))
    return f"{len(new)} of {len(content)} bytes"


def png(path: Path, rng: Random) -> str | None:
    content = path.read_bytes()
    if content[:8] != b"\x89PNG\r\n\x1a\n":
        return None
    chunks, at = [], 8
    while at + 12 <= len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        chunks.append([kind, content[at + 8 : at + 8 + size]])
        at += 12 + size
    what = rng.choice(("header",) * 5 + ("chunk", "delete", "twice", "bomb", "data", "kind"))
    told: object = ""
    place = rng.randrange(len(chunks))
    if what == "header":
        head = bytearray(chunks[0][1])
        form, offset = rng.choice(
            ((">I", 0), (">I", 4), ("B", 8), ("B", 9), ("B", 10), ("B", 11), ("B", 12))
        )
        told = f"{form}@{offset}={_field(head, form, offset, rng)}"
        chunks[0][1] = bytes(head)
    elif what == "chunk":
        kind = rng.choice((b"PLTE", b"tRNS", b"iCCP", b"zTXt", b"tEXt", b"iTXt", b"acTL", b"fcTL",
            b"fdAT",
                           b"gAMA", b"eXIf", b"pHYs", b"IEND", b"IDAT"))  # fmt: skip
        body = rng.choice((b"", rng.randbytes(12), b"x\0\0" + _zero_zlib(10**8, -1), bytes(768)))
        chunks.insert(rng.randrange(len(chunks) + 1), [kind, body])
        told = f"{kind!r} of {len(body)} bytes"
    elif what == "delete":
        told = chunks.pop(place)[0]
    elif what == "twice":
        chunks.insert(place, chunks[place])
        told = chunks[place][0]
    elif what == "kind":
        chunks[place][0] = bytes((*rng.sample(range(65, 90), 4),))
    else:
        side = rng.choice((100, 20_000, 60_000)) if what == "bomb" else 0
        if side:
            chunks[0][1] = struct.pack(">II", side, side) + chunks[0][1][8:]
        data = _zero_zlib(min(side * (side + 1), 3 * 10**8) or rng.randrange(2000), 9)
        chunks = [one for one in chunks if one[0] != b"IDAT"]
        chunks.insert(-1, [b"IDAT", data])
        told = side
    made = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", binascii.crc32(kind + body))
        for kind, body in chunks
    )
    path.write_bytes(content[:8] + made)
    return f"{what} {told}"


def fields(path: Path, rng: Random) -> str | None:
    """Numbers of 2 or 4 bytes near the start, or after a name that means a size."""
    content = bytearray(path.read_bytes())
    if len(content) < 16:
        return None
    marks = [m.start() for m in re.finditer(
        rb"avih|strh|strf|idx1|movi|LIST|RIFF|00dc|\xff\xc0|\xff\xc4|\xff\xda|\xff\xdb|II\*\0|BM|DICM|OHDR"
        rb"|SNOD|TREE|HEAP|FRHP|BTHD", bytes(content))]  # fmt: skip
    base = rng.choice(marks[:40]) if marks and rng.random() < 0.8 else 0
    told = []
    for _ in range(rng.choice((1, 1, 2))):
        form = rng.choice(("<I", "<I", "<H", ">I", ">H"))
        at = min(base + 4 * rng.randrange(20) + rng.choice((0, 0, 0, 2, 1)), len(content) - 4)
        told.append(f"{form}@{at}={_field(content, form, at, rng)}")
    path.write_bytes(content)
    return " ".join(told)


def dicom(path: Path, rng: Random) -> str | None:
    import pydicom
    from pydicom.uid import UID

    try:
        found = pydicom.dcmread(path, force=True)
        elements = [*found.iterall()]
    except Exception as error:
        return None if error else ""
    what = rng.choice(("value",) * 8 + ("delete", "syntax", "pixels", "vr", "add"))
    if not elements:
        return None
    holder, element = _an_element(found, rng)
    told = str(element.keyword or element.tag)
    new: Any = ""
    if what == "value":
        new = rng.choice((0, 1, -1, 2, 3, 8, 16, 65535, 2**31, 2**32 - 1, 1e308, float("nan"), "",
            "x",
                          "9" * 5000, "1\\2\\3", [1, 2, 3], ["x", "y"], None, b"", b"\0\xff",
                          "1.2.3",
                          "/etc/passwd", "é" * 100, 1e9, 10**12, "\ud800", "-1", "nan",
                          "1e400"))  # fmt: skip
        try:
            element._value = new
        except Exception:
            return None
    elif what == "delete":
        del holder[element.tag]
    elif what == "syntax":
        new = rng.choice(("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2",
                          "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.50",
                          "1.2.840.10008.1.2.4.70",
                          "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.5",
                          "1.2.840.10008.1.2.4.102",
                          "1.2.840.10008.1.2.4.80", "x", ""))  # fmt: skip
        found.file_meta.TransferSyntaxUID = UID(new)
    elif what == "pixels" and "PixelData" in found:
        data = found.PixelData
        new = rng.choice((data[:-1], data[: len(data) // 2], data + data, b"", data[8:]))
        found["PixelData"]._value = new
        new = len(new)
    elif what == "vr":
        new = rng.choice(
            ("US", "SS", "UL", "FD", "DS", "IS", "SQ", "OB", "OW", "UN", "UI", "PN", "LO")
        )
        element.VR = new
    else:
        tag = rng.choice((0x00280008, 0x00280010, 0x00280011, 0x00280100, 0x00280002, 0x00281050,
                          0x00281051, 0x00283000, 0x00080016, 0x00186011, 0x00281101))  # fmt: skip
        found.add_new(tag, "LO", rng.choice(("x", "0", "99999999", "")))
    out = io.BytesIO()
    try:
        pydicom.dcmwrite(out, found, enforce_file_format=False)
    except Exception:
        return None
    path.write_bytes(out.getvalue())
    return f"{what} {told} {str(new)[:40]!r}"


def _an_element(found: Any, rng: Random) -> tuple[Any, Any]:
    holders = [found, *([found.file_meta] if getattr(found, "file_meta", None) else [])]
    seen = 0
    while seen < len(holders):
        for element in holders[seen]:
            if element.VR == "SQ":
                holders += list(element.value)
        seen += 1
    holder = rng.choice([found, found, *holders])
    return holder, rng.choice(list(holder) or list(found))


def npy(path: Path, rng: Random) -> str | None:
    content = path.read_bytes()
    if content[:6] != b"\x93NUMPY":
        return None
    size = struct.unpack_from("<H", content, 8)[0]
    head = content[10 : 10 + size].decode("latin-1")
    shape = re.search(r"\(.*?\)", head)
    assert shape is not None
    shapes = ("()", "(0,)", "(-1,)", "(1000000000000,)", "(99999, 99999, 99999)", "(12, 16)",
              "(1e9,)", "(True,)", "((1,),)", "(2**63,)", f"({'9' * 5000},)", "(" * 999 + ")" * 999,
              "None", "'x'", "(12, 16, 16, 1)", "(11, 16, 16)", "(13, 16, 16)")  # fmt: skip
    kinds = ("'|u1'", "'<f8'", "'|O'", "'>u2'", "'|S9999999'", "'<M8[s]'", "[('a', '<i4')]", "'x'",
             "''", "3", "'|V0'", "'<c16'", "'<f2'", "'|b1'", "'<U4'")  # fmt: skip
    new = rng.choice(shapes)
    if rng.random() < 0.5:
        head = head.replace(shape.group(), new)
    else:
        new = rng.choice((*kinds, "True"))
        old = "False" if new == "True" else "'|u1'"
        head = head.replace(old, new)
    made = head.encode("latin-1")[:65535]
    path.write_bytes(content[:8] + struct.pack("<H", len(made)) + made + content[10 + size :])
    return new[:40]


def safetensors(path: Path, rng: Random) -> str | None:
    content = path.read_bytes()
    if len(content) < 8:
        return None
    size = struct.unpack_from("<Q", content)[0]
    try:
        head = json.loads(content[8 : 8 + size])
    except ValueError:
        return None
    what = rng.choice(("head", "head", "size", "type", "shape", "nan"))
    told: object = ""
    body = bytearray(content[8 + size :])
    names = [name for name in head if name != "__metadata__"]
    name = rng.choice(names) if names else ""
    made = b""
    if what == "head" or not name:
        head, told = changed(head, rng)
    elif what == "size":
        told = rng.choice((0, 1, size - 1, size + 1, 2**31, 2**63, 2**64 - 1))
        path.write_bytes(struct.pack("<Q", told) + content[8:])
        return f"size {told}"
    elif what == "type":
        told = head[name]["dtype"] = rng.choice(
            ("F64", "F16", "BF16", "I64", "BOOL", "U8", "F8_E4M3", "X")
        )
    elif what == "shape":
        old = head[name]["shape"]
        told = head[name]["shape"] = rng.choice(
            (old[::-1], [], [*old, 1], [1, *old], [0], [2**40], [-1])
        )
    else:
        at = 4 * rng.randrange(max(1, len(body) // 4))
        struct.pack_into("<f", body, at, told := rng.choice(FLOATS))
    made = made or dumped(head)
    path.write_bytes(struct.pack("<Q", len(made)) + made + bytes(body))
    return f"{what} {name} {str(told)[:60]}"


def hdf5(path: Path, rng: Random) -> str | None:
    """What h5py can do to a store: an array deleted, of another kind, an attribute changed."""
    import h5py
    import numpy as np

    try:
        file = h5py.File(path, "r+")
    except OSError:
        return None
    names: list[str] = []
    with file:
        file.visit(names.append)
        names.sort()
        name = rng.choice(names)
        what = rng.choice(
            ("delete", "kind", "shape", "value", "attribute", "attribute", "link", "group")
        )
        told: object = ""
        if what == "attribute":
            holder = rng.choice((file, file, file[name]))
            key = rng.choice(sorted(holder.attrs) or ["echogen"])
            old = holder.attrs.get(key)
            if isinstance(old, str) and old[:1] == "{" and rng.random() < 0.8:
                value, told = changed(json.loads(old), rng)
                new: Any = dumped(value).decode("utf-8", "replace").replace("\0", "")
            else:
                new = told = rng.choice((0, -1, 1.5, "x", "", [1, 2], b"\xff", "9" * 5000, np.nan))
            try:
                holder.attrs[key] = new
            except (OSError, RuntimeError, ValueError, TypeError):
                return None
            return f"{what} {holder.name}.{key}: {str(told)[:60]}"
        old_set = file[name]
        if what == "value":
            if not isinstance(old_set, h5py.Dataset) or not old_set.size:
                return None
            flat = old_set[()]
            index = tuple(rng.randrange(size) for size in flat.shape)
            try:
                flat[index] = rng.choice((0, 1, 255, "x", b"\xff\xfe", 3, -1, np.nan))
                old_set[...] = flat
            except (ValueError, TypeError, OverflowError, UnicodeError):
                return None
            return f"{what} {name}{index}"
        del file[name]
        if what == "kind":
            file[name] = rng.choice((1, "x", np.zeros(3), np.zeros(3, "f2"), np.array(["a"], "S3")))
        elif what == "shape":
            file.create_dataset(name, rng.choice(((0,), (1,), (10**9,), (3, 3, 3), (10**6, 10**6))),
                                rng.choice(("u1", "f4", "?", "i8")), chunks=True)  # fmt: skip
        elif what == "link":
            told = rng.choice(("/nowhere", f"/{name}", "/images"))
            file[name] = rng.choice((h5py.SoftLink(told), h5py.ExternalLink("nowhere.h5", told)))
        elif what == "group":
            file.create_group(name)
    return f"{what} {name} {told}"
