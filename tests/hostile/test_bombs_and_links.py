"""Small files that would unpack to large ones, archives from strangers, and links that leave their folder."""

import io
import os
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from mutations import damaged
from PIL import Image
from survival import survives
from typer.testing import CliRunner

from civae_cli.app import app
from civae_core.data.images import MAX_PIXELS, Preprocessing, decode
from civae_core.data.sources.celeba import celeba_source, is_celeba
from civae_core.data.sources.files import FolderFiles, ZipFiles
from civae_core.errors import DataError
from civae_core.native.photo import read_native

SMALL = Preprocessing(size=8)


def jpeg(seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((20, 20, 3), 40 + seed, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def png_of(width: int, height: int, bits: int = 8, kind: int = 2) -> bytes:
    """A PNG of zeros that states any size; its pixels are there only as far as a megabyte of zeros goes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    pixels = zlib.compress(bytes(2**20), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


# Pixels.


@pytest.mark.parametrize(
    ("width", "height"), [(65_000, 65_000), (12_000, 12_000), (2**31 - 1, 1), (1, MAX_PIXELS + 1)]
)
def test_pictures_of_too_many_pixels_are_refused_before_they_are_unpacked(width: int, height: int) -> None:
    with pytest.raises(DataError, match=r"pixels are too many \(limit 89,000,000\)"):
        decode(png_of(width, height), SMALL)
    with pytest.raises(DataError, match=r"pixels are too many \(limit 89,000,000\)"):
        read_native(png_of(width, height))


@pytest.mark.parametrize("extra", [b"zTXt" + b"k\0\0", b"iCCP" + b"k\0\0", b"iTXt" + b"k\0\1\0\0\0"])
def test_text_and_profiles_that_unpack_to_much_are_not_unpacked(extra: bytes) -> None:
    data = extra + zlib.compress(bytes(2**27), 9)
    chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    plain = png_of(8, 8)
    with allocating_at_most(2**23):
        survives("image", lambda: decode(plain[:33] + chunk + plain[33:], SMALL))
        survives("image", lambda: read_native(plain[:33] + chunk + plain[33:]))


@contextmanager
def allocating_at_most(most: int) -> Iterator[None]:
    """Assert a limit in bytes on Python's own objects, to which an unpacker's output belongs."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def within(mebibytes: int, code: str) -> str:
    """Run Python code in a process that may take this much memory beyond its imports; return what it prints."""
    start = (
        "import resource, numpy as np\n"
        "from pathlib import Path\n"
        "from civae_core.data.images import Preprocessing, decode\n"
        "from civae_core.data.tables import read_table\n"
        "from civae_core.errors import DataError\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        f"limit = used + {mebibytes} * 2**20\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", start + code], capture_output=True, text=True, timeout=600, check=False
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory are Linux's")
def test_a_large_scan_is_read_within_a_few_times_its_size(tmp_path: Path) -> None:
    """16-bit grey values are converted to floats for rounding one strip at a time."""
    Image.fromarray(np.full((5_000, 5_000), 32_896, np.uint16)).save(tmp_path / "scan.tif")
    code = f"print(decode({str(tmp_path / 'scan.tif')!r}, Preprocessing(size=8)).mean())"
    assert within(350, code) == "128.0"


# Archives.


def archive(path: Path, method: int = zipfile.ZIP_DEFLATED, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def celeba_members(count: int = 6) -> dict[str, bytes]:
    names = [f"{n:06d}.jpg" for n in range(1, count + 1)]
    rows = "".join(f"{name} {1 if n % 2 else -1} 1\n" for n, name in enumerate(names))
    split = "".join(f"{name} {n % 3}\n" for n, name in enumerate(names))
    return {
        "list_attr_celeba.txt": f"{count}\nMale Young\n{rows}".encode(),
        "list_eval_partition.txt": split.encode(),
        **{f"img_align_celeba/{name}": jpeg(n) for n, name in enumerate(names)},
    }


def prepare(root: Path, out: Path, *more: str) -> tuple[int, str]:
    arguments = ["prepare-data", str(root), "--out", str(out), "--size", "8", "--workers", "1", *more]
    result = CliRunner().invoke(app, arguments)
    assert "Traceback" not in result.stderr and "internal error" not in result.stderr
    return result.exit_code, result.stderr


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_that_unpacks_to_gigabytes_is_left_packed(tmp_path: Path, method: int) -> None:
    """A large stated size is believed, a small one is not; unpackers that cannot be limited are not used at all."""
    honest = tmp_path / "honest.zip"
    with zipfile.ZipFile(honest, "w", method) as file:
        file.writestr("x.jpg", bytes(2**25))
    assert honest.stat().st_size < 2**20
    with allocating_at_most(2**22):
        for stated in (1_000, 2**32 - 2):
            data = bytearray(honest.read_bytes())
            place = data.rindex(b"PK\x01\x02") + 24  # in the directory: the size unpacked
            assert int.from_bytes(data[place : place + 4], "little") == 2**25
            data[place : place + 4] = stated.to_bytes(4, "little")
            lying = tmp_path / f"{stated}.zip"
            lying.write_bytes(data)
            with pytest.raises(
                DataError, match=r"cannot be read|unpacks to 4,294,967,294 bytes|packed with a method"
            ):
                ZipFiles(lying, "").read("x.jpg")


@pytest.mark.parametrize(
    "name",
    ["../escaped.txt", "HERE/escaped.txt", "..\\escaped.txt", "a/../../escaped.txt", "x/\0y", "é.txt"],
)
def test_members_named_outside_the_archive_write_nothing(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "in"
    inside.mkdir()
    name = name.replace("HERE", str(tmp_path))
    celeba = archive(inside / "celeba.zip", **celeba_members(), **{name: b"gotcha"})
    before = set(tmp_path.rglob("*"))
    code, errors = prepare(celeba, tmp_path / "out")
    assert code == 0, errors
    new = set(tmp_path.rglob("*")) - before
    assert all(path.is_relative_to(tmp_path / "out") for path in new)


def hostile_list(prefix: str) -> Callable[[dict[str, bytes]], dict[str, bytes]]:
    return lambda members: {
        (prefix + name if "list" in name else name): data for name, data in members.items()
    }


@pytest.mark.parametrize("prefix", ["../", "/", "//a//", "x/../"])
def test_lists_named_outside_the_archive_are_read_or_refused(tmp_path: Path, prefix: str) -> None:
    celeba = archive(tmp_path / "celeba.zip", **hostile_list(prefix)(celeba_members()))
    code, errors = prepare(celeba, tmp_path / "out")
    assert code in (0, 3), errors


ZIP = io.BytesIO()
with zipfile.ZipFile(ZIP, "w", zipfile.ZIP_DEFLATED) as _file:
    for _name, _data in celeba_members().items():
        _file.writestr(_name, _data)


@given(data=damaged(ZIP.getvalue()))
def test_a_damaged_archive(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / f"celeba-{abs(hash(data))}.zip"
    path.write_bytes(data)

    def read() -> int:
        assert is_celeba(path)
        source = celeba_source(path, size=8, channels=3, crop=None)
        return len(source.reader.read(range(len(source.table.file_names))).kept)

    try:
        survives("zip", read, may_raise=DataError)
    finally:
        path.unlink()


def test_an_encrypted_member_is_one_bad_image(tmp_path: Path) -> None:
    data = bytearray(archive(tmp_path / "a.zip", **{"x.jpg": jpeg()}).read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    (tmp_path / "b.zip").write_bytes(data)
    with pytest.raises(DataError, match="encrypted"):
        ZipFiles(tmp_path / "b.zip", "").read("x.jpg")


# Links, pipes and devices.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "photos"
    made.mkdir()
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg"):
        (made / name).write_bytes(jpeg())
    (made / "metadata.csv").write_text(
        "file_name,split,Male\na.jpg,train,1\nb.jpg,valid,0\nc.jpg,test,1\nd.jpg,train,0\n"
    )
    return made


def test_a_link_that_leaves_the_folder_is_left_out_unless_asked_for(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(jpeg(9))
    (folder / "a.jpg").unlink()
    (folder / "a.jpg").symlink_to(tmp_path / "secret.jpg")
    code, errors = prepare(folder, tmp_path / "out")
    assert (
        code == 3 and "a.jpg: a link that leaves the image folder; --follow-links would follow it" in errors
    )
    code, errors = prepare(folder, tmp_path / "allowed", "--max-bad", "1")
    assert code == 0 and "3 images" in errors and "1 left out" in errors
    code, errors = prepare(folder, tmp_path / "allowed", "--follow-links")
    assert code == 2, "other data: what was left out before must not pass for it"
    code, errors = prepare(folder, tmp_path / "followed", "--follow-links")
    assert code == 0 and "4 images" in errors


def test_links_within_the_folder_and_a_folder_that_is_a_link_are_followed(
    folder: Path, tmp_path: Path
) -> None:
    (folder / "a.jpg").unlink()
    (folder / "a.jpg").symlink_to("b.jpg")
    (tmp_path / "here").symlink_to(folder, target_is_directory=True)
    code, errors = prepare(tmp_path / "here", tmp_path / "out")
    assert code == 0 and "4 images" in errors


def test_a_link_in_a_circle_a_pipe_and_a_device_are_bad_images(folder: Path) -> None:
    (folder / "round.jpg").symlink_to("round.jpg")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "zero.jpg").symlink_to("/dev/zero")
    (folder / "sub.jpg").mkdir()
    for name, reason in {
        "round.jpg": "cannot be read",
        "pipe.jpg": "cannot be read: not a regular file",
        "zero.jpg": "leaves the image folder",
        "sub.jpg": "cannot be read",
        "x\0y.jpg": "cannot be read",
        "n" * 300 + ".jpg": "cannot be read: File name too long",
    }.items():
        with pytest.raises(DataError, match=reason):
            survives("links", lambda name=name: FolderFiles(folder).read(name), may_raise=())
    with pytest.raises(DataError, match="not a regular file"):
        FolderFiles(folder, follow_links=True).read("zero.jpg")


def test_a_picture_that_is_a_pipe_does_not_hang_an_edit(folder: Path) -> None:
    os.mkfifo(folder / "pipe.jpg")
    with pytest.raises(DataError, match=r"pipe.jpg: not a regular file"):
        survives("links", lambda: decode(folder / "pipe.jpg", SMALL), may_raise=())
    with pytest.raises(DataError, match=r"pipe.jpg: not a regular file"):
        survives("links", lambda: read_native(folder / "pipe.jpg"), may_raise=())


def test_a_table_that_is_a_pipe_does_not_hang(folder: Path, tmp_path: Path) -> None:
    (folder / "metadata.csv").unlink()
    os.mkfifo(folder / "metadata.csv")
    code, errors = prepare(folder, tmp_path / "out")
    assert code == 3 and "has no table of attributes" in errors
    code, errors = prepare(folder, tmp_path / "out", "--table", str(folder / "metadata.csv"))
    assert code == 3 and "metadata.csv is not a regular file" in errors
