"""Files of kinds that no picture of a set may be: whatever else Pillow writes, and the beginnings of many others."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import numpy as np
from PIL import Image

from broden import decode

_PIXELS = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)

# The beginnings of files by kind: signatures as the formats' own documents give them.
_STARTS: dict[str, bytes] = {
    "gif87": b"GIF87a", "gif89": b"GIF89a", "tiff le": b"II*\0", "tiff be": b"MM\0*", "bigtiff": b"II+\0",
    "psd": b"8BPS\0\1", "psb": b"8BPS\0\2", "xcf": b"gimp xcf v011", "jp2": b"\0\0\0\x0cjP  \r\n\x87\n",
    "j2k": b"\xff\x4f\xff\x51", "jxl": b"\xff\x0a", "jxl box": b"\0\0\0\x0cJXL \r\n\x87\n", "jxr": b"II\xbc\x01",
    "jpeg-ls": b"\xff\xd8\xff\xf7\0\x0b\x08", "lossless jpeg": b"\xff\xd8\xff\xc3\0\x0b\x08",
    "avif": b"\0\0\0\x20ftypavif", "heic": b"\0\0\0\x18ftypheic", "heif": b"\0\0\0\x18ftypmif1",
    "mp4": b"\0\0\0\x18ftypisom", "mov": b"\0\0\0\x14ftypqt  ", "3gp": b"\0\0\0\x14ftyp3gp4",
    "cr3": b"\0\0\0\x18ftypcrx ", "mkv": b"\x1aE\xdf\xa3", "ogg": b"OggS", "flac": b"fLaC", "mp3": b"ID3\3",
    "midi": b"MThd\0\0\0\6", "au": b".snd", "aiff": b"FORM\0\0\0\4AIFF", "ilbm": b"FORM\0\0\0\4ILBM",
    "wav": b"RIFF\x24\0\0\0WAVEfmt ", "avi": b"RIFF\x24\0\0\0AVI LIST", "ani": b"RIFF\x24\0\0\0ACONanih",
    "cdr": b"RIFF\x24\0\0\0CDRvvrsn", "rifx": b"RIFX\0\0\0\x24", "webp of nothing": b"RIFF\4\0\0\0WEBP",
    "bitmap array": b"BA\x28\0\0\0", "text that begins with BM": b"BMW and other cars\n", "mng": b"\x8aMNG\r\n\x1a\n",
    "jng": b"\x8bJNG\r\n\x1a\n", "ico": b"\0\0\1\0\1\0", "cur": b"\0\0\2\0\1\0", "icns": b"icns\0\0\0\x10",
    "pcx": b"\n\5\1\x08", "tga": b"\0\0\2\0\0\0", "dds": b"DDS \x7c\0\0\0", "ktx": b"\xabKTX 11\xbb\r\n\x1a\n",
    "hdr": b"#?RADIANCE\n", "exr": b"v/1\x01\2\0\0\0", "dpx": b"SDPX", "cin": b"\x80\x2a\x5f\xd7",
    "fits": b"SIMPLE  =                    T", "dicom": bytes(128) + b"DICM", "nifti": struct.pack("<i", 348),
    "flif": b"FLIF", "bpg": b"BPG\xfb", "qoi": b"qoif", "farbfeld": b"farbfeld", "pbm": b"P1\n1 1\n1\n",
    "pgm": b"P5\n1 1\n255\n0", "ppm": b"P6\n1 1\n255\n000", "pam": b"P7\nWIDTH 1\n", "pfm": b"PF\n1 1\n-1.0\n",
    "xbm": b"#define x_width 16\n", "xpm": b"/* XPM */\nstatic char *x[] = {\n",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
    "xml": b"<?xml version='1.0'?><!DOCTYPE x>", "html": b"<!doctype html><script>alert(1)</script>",
    "pdf": b"%PDF-1.7\n", "postscript": b"%!PS-Adobe-3.0\n", "eps": b"\xc5\xd0\xd3\xc6", "wmf": b"\xd7\xcd\xc6\x9a",
    "emf": b"\1\0\0\0\x6c\0\0\0", "djvu": b"AT&TFORM", "zip": b"PK\3\4", "gzip": b"\x1f\x8b\x08", "bzip2": b"BZh9",
    "xz": b"\xfd7zXZ\0", "zstd": b"\x28\xb5\x2f\xfd", "7z": b"7z\xbc\xaf\x27\x1c", "rar": b"Rar!\x1a\7\1\0",
    "tar": b"x" + bytes(256) + b"ustar", "cab": b"MSCF", "elf": b"\x7fELF\2\1\1", "exe": b"MZ\x90\0",
    "mach-o": b"\xcf\xfa\xed\xfe", "class": b"\xca\xfe\xba\xbe", "wasm": b"\0asm\1\0\0\0",
    "shell": b"#!/bin/sh\ntouch canary\n", "python": b"import os; os.mkdir('canary')\n",
    "pickle": b"\x80\x04cos\nmkdir\n", "sqlite": b"SQLite format 3\0", "hdf5": b"\x89HDF\r\n\x1a\n",
    "npy": b"\x93NUMPY\1\0", "npz": b"PK\3\4\x14\0\0\0x.npy", "parquet": b"PAR1", "arrow": b"ARROW1\0\0",
    "ttf": b"\0\1\0\0\0\x0c", "woff2": b"wOF2", "ole": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "rtf": b"{\\rtf1",
    "json": b'{"a": 1}', "lfs": b"version https://git-lfs", "utf-16": b"\xff\xfe<\0s\0v\0g\0",
    "space before jpeg": b" \xff\xd8\xff\xe0", "crlf png": b"\x89PNG\n\x1a\n\0", "raf": b"FUJIFILMCCD-RAW",
    "orf": b"IIRO\x08\0", "rw2": b"IIU\0", "x3f": b"FOVb", "mrw": b"\0MRM",
}  # fmt: skip


@cache
def files() -> dict[str, bytes]:
    """Each must be refused: the beginnings with noise behind them, what Pillow can write beyond the four kinds, and
    pictures of one of the four behind another beginning."""
    noise = np.random.default_rng(1).bytes(600)
    found = {f"{name}, noise": start + noise for name, start in _STARTS.items()}
    sound = {kind: _saved(kind) for kind in decode.FORMATS}
    for name in ("gif89", "pdf", "zip", "html", "postscript", "svg"):
        for kind, data in sound.items():
            assert data is not None
            found[f"{name} before {kind}"] = _STARTS[name] + data
    Image.init()
    for kind in sorted(set(Image.SAVE) - {*decode.FORMATS, "MPO"}):
        data = _saved(kind)
        if data:
            found[f"Pillow's {kind}"] = data
    return found


def _saved(kind: str) -> bytes | None:
    for mode in ("RGB", "L", "P", "1", "RGBA"):
        out = io.BytesIO()
        try:
            Image.fromarray(_PIXELS).convert(mode).save(out, kind)
        except Exception:  # not every kind can be written everywhere, nor in every mode
            continue
        return out.getvalue()
    return None


def refused(data: bytes) -> bool:
    """Whether neither a picture, nor a plane, nor a mask comes of it."""
    for reader in (decode.pixels, decode.label_plane, decode.mask):
        try:
            reader(data)
        except decode.DecodeError:
            continue
        return False
    return True


@contextmanager
def watched() -> Iterator[list[str]]:
    """Collects the kinds beyond the four whose decoder is begun."""
    Image.init()
    asked: list[str] = []
    before = dict(Image.OPEN)

    def told(kind: str, factory: Callable[..., object]) -> Callable[..., object]:
        def begun(*arguments: object) -> object:
            asked.append(kind)
            return factory(*arguments)

        return begun

    for kind, (factory, accept) in before.items():
        if kind not in decode.FORMATS:
            Image.OPEN[kind] = (told(kind, factory), accept)  # type: ignore[assignment]
    try:
        yield asked
    finally:
        Image.OPEN.update(before)
