"""Small files with much behind them, files that are no files, and names that are no text."""

import gzip
import os
import socket
import struct
import zlib
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from pydicom.uid import RLELossless

from echogen.datasets import open_dataset
from echogen.datasets.picture_files import MOST_CHUNKS, MOST_SCANS, PNG_SIGNATURE
from echogen.datasets.pixels import read_plane, read_values
from echogen.errors import DatasetError
from echogen.support.nifti import nifti_bytes
from tests.support import dicoms
from tests.support.pictures import heart, save, speckle
from tests.survival.children import in_child

HUGE, MEMORY = 2**30, 3 * 2**27
"""Bytes behind a bomb, and those that refusing it may take."""
PIXELS = nifti_bytes(speckle(), (1.0, 1.0))


def check_refused(read: Callable[[Path], object], path: Path, message: str | None = None) -> None:
    """A reader refuses a file in one line, with its name or `message`, and takes little memory."""

    def refused() -> None:
        with pytest.raises(DatasetError, match=message or path.name) as caught:
            read(path)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) <= 2000

    ended = in_child(refused, path.parent, memory=MEMORY)
    assert not ended.fault, f"{ended.fault}: {ended.err}"


def read_one(path: Path) -> None:
    read_plane(path.parent, path, None)


def read_many(path: Path) -> None:
    read_values(path, path.name, "class ids")


def zeros(count: int, start: bytes = b"", bits: int = 31) -> bytes:
    """A gzip (31) or zlib (15) stream of so many zeros."""
    packer = zlib.compressobj(1, zlib.DEFLATED, bits)
    parts, block = [packer.compress(start)], bytes(2**24)
    parts += [packer.compress(block) for _ in range(count // len(block))]
    return b"".join([*parts, packer.flush()])


def nifti(cols: int, rows: int, planes: int, kind: int = 2, bits: int = 8) -> bytes:
    header = bytearray(PIXELS[:352])
    struct.pack_into("<8h", header, 40, 3, cols, rows, planes, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, kind, bits)
    return bytes(header)


def meta(sizes: str, packed: bool = True, kind: str = "MET_UCHAR", more: str = "") -> bytes:
    count = len(sizes.split())
    return (
        f"ObjectType = Image\nNDims = {count}\n{more}DimSize = {sizes}\nCompressedData = {packed}\n"
        f"ElementType = {kind}\nElementDataFile = LOCAL\n"
    ).encode()


def png(cols: int, rows: int, *chunks: tuple[bytes, bytes]) -> bytes:
    header = struct.pack(">2I5B", cols, rows, 8, 0, 0, 0, 0)
    every = ((b"IHDR", header), *chunks, (b"IEND", b""))
    return PNG_SIGNATURE + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in every
    )


def jpeg(cols: int, rows: int, scans: int = 1) -> bytes:
    size = struct.pack(">BHHBBBB", 8, rows, cols, 1, 1, 0x11, 0)
    frame = b"\xff\xc2" + struct.pack(">H", 2 + len(size)) + size
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x00\x00\x10" + bytes(4)
    return b"\xff\xd8" + frame + scans * scan + b"\xff\xd9"


def tiff(cols: int, rows: int, *more: tuple[int, int, int, int], copies: int = 1) -> bytes:
    entries = sorted([(256, 4, 1, cols), (257, 4, 1, rows), *more])
    size = 2 + 12 * len(entries) + 4
    directory = struct.pack("<H", len(entries))
    directory += b"".join(struct.pack("<2H2I", *entry) for entry in entries)
    places = [8 + number * size for number in range(1, copies)] + [0]
    return b"II*\0\x08\0\0\0" + b"".join(directory + struct.pack("<I", at) for at in places)


def bmp(cols: int, rows: int) -> bytes:
    return b"BM" + struct.pack("<IHHI", 100, 0, 0, 54) + struct.pack(
        "<IiiHHIIiiII", 40, cols, rows, 1, 24, 0, 0, 0, 0, 0, 0
    )  # fmt: skip


def text_chunks() -> bytes:
    packed = zeros(2**28, bits=15)
    pixels = zlib.compress(bytes(11 * 10))
    return png(
        10, 10, (b"zTXt", b"a\0\0" + packed), (b"iCCP", b"a\0\0" + packed), (b"IDAT", pixels)
    )


BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "more behind a gzip file than its header says": ("nii.gz", lambda: zeros(HUGE, PIXELS)),
    "zeros after a gzip file": ("nii.gz", lambda: gzip.compress(PIXELS) + bytes(2**23)),
    "as much as its header says": ("nii.gz", lambda: zeros(HUGE, nifti(16384, 16384, 12))),
    "many slices": ("nii.gz", lambda: zeros(HUGE, nifti(256, 256, 32000, 64, 64))),
    "an uncompressed file of too many bytes": ("nii", lambda: PIXELS + bytes(2**22)),
    "more behind a zlib stream": ("mha", lambda: meta("10 10 10") + zeros(HUGE, bits=15)),
    "a meta image of wide doubles": ("mha", lambda: meta("9000 9000", kind="MET_DOUBLE")),
    "a wide PNG": ("png", lambda: png(2**30, 1, (b"IDAT", zeros(2**24, bits=15)))),
    "a PNG of many pixels": ("png", lambda: png(16000, 16000, (b"IDAT", zeros(2**28, bits=15)))),
    "a PNG with much text": ("png", text_chunks),
    "a PNG of many chunks": ("png", lambda: png(9, 9, *[(b"aaAa", b"")] * MOST_CHUNKS)),
    "a JPEG of many pixels": ("jpg", lambda: jpeg(60000, 60000)),
    "a JPEG of many passes": ("jpg", lambda: jpeg(4000, 4000, MOST_SCANS + 1)),
    "a TIFF of many pixels": ("tif", lambda: tiff(60000, 60000)),
    "a TIFF of large tiles": ("tif", lambda: tiff(9, 9, (322, 4, 1, 30000), (323, 4, 1, 30000))),
    "a TIFF of many strips": ("tif", lambda: tiff(9, 9, (273, 4, 2**24, 8), (279, 4, 2**24, 8))),
    "a TIFF of many pictures": ("tif", lambda: tiff(9, 9, copies=200_000)),
    "a TIFF whose directory lies nowhere": ("tif", lambda: b"II+\0\b\0\0\0" + b"\xff" * 8),
    "a BMP of many pixels": ("bmp", lambda: bmp(30000, -30000)),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_with_little_memory(bomb: str, tmp_path: Path) -> None:
    ending, make = BOMBS[bomb]
    read = read_many if "10 10 10" in bomb or "slices" in bomb else read_one
    path = tmp_path / f"x.{ending}"
    path.write_bytes(make())
    check_refused(read, path)


def an_rle_bomb() -> dicoms.Dataset:
    """One picture of 2 x 2 pixels, whose segment makes 2 GB of a run of zeros."""
    found = dicoms.an_ultrasound(np.zeros((1, 2, 2), np.uint8))
    found.compress(RLELossless)
    header = struct.pack("<16I", 1, 64, *[0] * 14)
    found.PixelData = dicoms.encapsulate([header + b"\x81\0" * 2**24])
    return found


def test_a_dicom_picture_of_more_than_it_states_is_refused(tmp_path: Path) -> None:
    path = dicoms.save(an_rle_bomb(), tmp_path / "data" / "x.dcm")
    check_refused(read_dicom, path, "picture 0 cannot be decoded")


def read_dicom(path: Path) -> None:
    dataset = open_dataset(path.parent, need_labels=False)
    dataset.read(dataset.keys[0])


def a_pair(root: Path, name: str = "x") -> Path:
    save(root / "labels" / f"{name}.png", heart())
    return save(root / "images" / f"{name}.png", speckle())


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def a_socket(path: Path) -> None:
    here = os.getcwd()  # noqa: PTH109
    os.chdir(path.parent)  # a socket's whole path has little room
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(path.name)
    finally:
        os.chdir(here)


ODD_FILES: dict[str, Callable[[Path], object]] = {
    "fifo": a_fifo,
    "socket": a_socket,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "folder": lambda path: path.mkdir(),
    "link to nothing": lambda path: path.symlink_to("gone.png"),
}


@pytest.mark.parametrize("odd", ODD_FILES)
@pytest.mark.parametrize("ending", [".png", ".tif", ".nii.gz", ".mha"])
def test_what_is_no_file_is_a_problem_and_the_others_are_read(
    odd: str, ending: str, tmp_path: Path
) -> None:
    a_pair(tmp_path, "a")
    a_pair(tmp_path, "b").unlink()
    ODD_FILES[odd](tmp_path / "images" / f"b{ending}")
    dataset = open_dataset(tmp_path)
    said = [problem.reason for problem in dataset.problems()]
    for key in dataset.keys:
        try:
            dataset.read(key)
            dataset.fingerprint(key)
        except DatasetError as error:
            said.append(str(error))
    assert len(said) == 1
    assert said[0].startswith((f"images/b{ending}: cannot be read (", "labels/b.png: no image"))


@pytest.mark.parametrize("odd", ["fifo", "socket", "device", "folder"])
@pytest.mark.parametrize(
    "table",
    ["cases.csv", "samples.csv", "classes.csv", "notes.json", "x.dcm", "labels/x.json",
     "p1/Info_4CH.cfg", "p1/MANDATORY_CITATION.md", "database_split/subgroup_training.txt"],
)  # fmt: skip
def test_what_is_no_table_hangs_nothing(odd: str, table: str, tmp_path: Path) -> None:
    if "/" in table:
        a_camus_pair(tmp_path / "p1", "p1")
    else:
        a_pair(tmp_path)
    place = tmp_path / table
    place.parent.mkdir(exist_ok=True)
    ODD_FILES[odd](place)
    refused = table in ("cases.csv", "classes.csv")
    with pytest.raises(DatasetError, match=place.name) if refused else nullcontext():
        dataset = open_dataset(tmp_path)
        dataset.read(dataset.keys[0])


def a_camus_pair(folder: Path, case: str) -> None:
    folder.mkdir(exist_ok=True)
    for end, pixels in (("", speckle()), ("_gt", heart())):
        content = gzip.compress(nifti_bytes(pixels, (1.0, 1.0)))
        (folder / f"{case}_4CH_ED{end}.nii.gz").write_bytes(content)


@pytest.mark.parametrize("name", [b"\xff", b"a\nb", b"a\x1b[2Jb", "a\u2028b".encode()])
@pytest.mark.parametrize("layout", ["folder", "images", "camus", "nnunet", "cardiacuda"])
def test_a_name_that_cannot_be_written_is_a_problem_of_its_frame(
    name: bytes, layout: str, tmp_path: Path
) -> None:
    stem, content = os.fsdecode(name), gzip.compress(PIXELS)
    for one in ("good", stem):
        if layout in ("folder", "images"):
            a_pair(tmp_path, one)
        elif layout == "camus":
            a_camus_pair(tmp_path / one, one)
        elif layout == "nnunet":
            for place in (f"imagesTr/{one}_0000.nii.gz", f"labelsTr/{one}.nii.gz"):
                (tmp_path / place).parent.mkdir(exist_ok=True)
                (tmp_path / place).write_bytes(content)
            (tmp_path / "dataset.json").write_text(
                '{"labels": {"background": 0, "LV": 1}, "file_ending": ".nii.gz"}'
            )
        else:
            for what in ("image", "label"):
                place = tmp_path / "Site_G_20" / f"{one}-4_{what}.nii.gz"
                place.parent.mkdir(exist_ok=True)
                planes = nifti(32, 40, 1) + PIXELS[352:]
                place.write_bytes(gzip.compress(planes))
    if layout == "images":
        dataset = open_dataset(tmp_path, "images", need_labels=False)
    else:
        dataset = open_dataset(tmp_path)
    assert {key.frame_id.rpartition("/")[2][:4] for key in dataset.keys} <= {"good", "Site"}
    assert all(key.frame_id.isprintable() for key in dataset.keys)
    problems = dataset.problems()
    assert problems
    assert len(dataset.keys) == len(problems)
    for problem in problems:
        assert (problem.frame_id + problem.reason).isprintable()
        assert "rename it" in problem.reason


@pytest.mark.parametrize("change", ["NDims = -1", "NDims = 1000000000"])
def test_a_header_that_ends_itk_is_refused(change: str, tmp_path: Path) -> None:
    path = tmp_path / "x.mha"
    content = meta("40 32", packed=False).replace(b"NDims = 2", change.encode()) + bytes(40 * 32)
    path.write_bytes(content)
    check_refused(read_one, path)


def test_a_video_that_names_others_is_not_followed(tmp_path: Path) -> None:
    """A list of files and addresses, as FFmpeg reads them, in a file called a video."""
    from echogen.datasets.videos import read_video_frame

    path = tmp_path / "x.avi"
    path.write_text("ffconcat version 1.0\nfile /dev/zero\n")
    with pytest.raises(DatasetError, match=r"x.avi: cannot be decoded up to frame 0"):
        read_video_frame(path, 0, path.name)
