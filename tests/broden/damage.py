"""Ways to damage a file, and ways to write an odd but sound one. For `verify`: it must tell the two apart.

Each maker takes the bytes of a good file, the size (height, width) it must have and a random generator.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache

import numpy as np
from PIL import Image

Maker = Callable[[bytes, tuple[int, int], np.random.Generator], bytes]


def _save(image: Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def _noise(size: tuple[int, int], rng: np.random.Generator, depth: int = 3) -> np.ndarray:
    return rng.integers(0, 256, (*size, depth), np.uint8)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, depth: int, colour: int, data: bytes, extra: bytes = b"") -> bytes:
    """A PNG with any header; `data` is deflated as it is."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = _chunk(b"IHDR", head) + extra + _chunk(b"IDAT", zlib.compress(data)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def cut(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    return data[: int(rng.integers(1, len(data)))]


def cut_at_the_end(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    return data[: len(data) - int(rng.integers(1, 12))]


def empty(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    return b""


def zeros(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    return bytes(len(data))


def text(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    return b"<html><body>404 not found</body></html>\n"


def noise(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    return rng.bytes(len(data))


def wrong_size(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    other = (size[0] + int(rng.integers(1, 9)), size[1])
    return _save(Image.fromarray(_noise(other, rng)), "PNG")


def bomb_by_header(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    return png_of(60_000, 60_000, 8, 2, bytes(1000))


@cache
def _big_picture(side: int) -> bytes:
    return png_of(side, side, 8, 0, bytes(side * (side + 1)))


@cache
def _big_text() -> bytes:
    return _chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(40_000_000)))


def bomb_by_pixels(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    return _big_picture(8500)


def bomb_in_text(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    rows = b"".join(b"\0" + bytes(size[1] * 3) for _ in range(size[0]))
    return png_of(size[1], size[0], 8, 2, rows, _big_text() * 2)


def too_few_rows(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    return png_of(size[1], size[0], 8, 2, b"\0" + bytes(size[1] * 3))


def gif(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    return _save(Image.fromarray(_noise(size, rng)), "GIF")


def tiff(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    return _save(Image.fromarray(_noise(size, rng)), "TIFF")


def animated_png(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    frames = [Image.fromarray(_noise(size, rng)) for _ in range(3)]
    return _save(frames[0], "PNG", save_all=True, append_images=frames[1:])


def animated_webp(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    frames = [Image.fromarray(_noise(size, rng)) for _ in range(3)]
    return _save(frames[0], "WEBP", save_all=True, append_images=frames[1:])


def flipped_png(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    """One bit anywhere in a PNG."""
    image = Image.fromarray(_noise(size, rng)) if data[:3] == b"\xff\xd8\xff" else None
    content = bytearray(_save(image, "PNG") if image is not None else data)
    content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
    return bytes(content)


def flipped_jpeg(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    """One bit anywhere in a JPEG. Most of these decode: only a recorded checksum can tell."""
    content = bytearray(data)
    content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
    return bytes(content)


# What is a fault wherever it stands.
IMAGE_DAMAGE: dict[str, Maker] = {
    "cut": cut, "cut at the end": cut_at_the_end, "empty": empty, "zeros": zeros, "text": text, "noise": noise,
    "wrong size": wrong_size, "bomb by header": bomb_by_header, "bomb by pixels": bomb_by_pixels,
    "bomb in text": bomb_in_text, "too few rows": too_few_rows, "gif": gif, "tiff": tiff,
    "animated png": animated_png, "animated webp": animated_webp, "flipped png": flipped_png,
}  # fmt: skip


def grey_jpeg(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    return _save(Image.fromarray(_noise(size, rng)[..., 0]), "JPEG")


def cmyk_jpeg(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    return _save(Image.fromarray(_noise(size, rng, 4), "CMYK"), "JPEG")


def progressive_jpeg(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    return _save(Image.fromarray(_noise(size, rng)), "JPEG", progressive=True)


def jpeg_with_a_tail(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    return _save(Image.fromarray(_noise(size, rng)), "JPEG") + bytes(100)


def turned_jpeg(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return _save(Image.fromarray(_noise(size, rng)), "JPEG", exif=exif)


def rgb_png(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    return _save(Image.fromarray(_noise(size, rng)), "PNG")


def alpha_png(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    return _save(Image.fromarray(_noise(size, rng, 4), "RGBA"), "PNG")


def palette_png(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    return _save(Image.fromarray(_noise(size, rng)).convert("P"), "PNG")


def palette_alpha_png(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    return _save(Image.fromarray(_noise(size, rng)).convert("P"), "PNG", transparency=3)


def deep_grey_png(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    return _save(Image.fromarray(rng.integers(0, 65536, size, np.uint16)), "PNG")


def two_tone_png(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    return _save(Image.fromarray(_noise(size, rng)).convert("1"), "PNG")


def webp(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    return _save(Image.fromarray(_noise(size, rng)), "WEBP")


def bmp(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    return _save(Image.fromarray(_noise(size, rng)), "BMP")


# Sound pictures by the rule of broden.decode; none of them can be a label plane.
ODD_IMAGES: dict[str, Maker] = {
    "grey": grey_jpeg, "cmyk": cmyk_jpeg, "progressive": progressive_jpeg, "tail": jpeg_with_a_tail,
    "turned": turned_jpeg, "rgb png": rgb_png, "alpha": alpha_png, "palette": palette_png,
    "palette and alpha": palette_alpha_png, "16-bit grey": deep_grey_png, "two-tone": two_tone_png, "webp": webp,
    "bmp": bmp,
}  # fmt: skip


def deep_plane(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    rows = b"".join(b"\0" + bytes(size[1] * 6) for _ in range(size[0]))
    return png_of(size[1], size[0], 16, 2, rows)


def unknown_label(data: bytes, size: tuple[int, int], rng: np.random.Generator) -> bytes:
    rgb = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).copy()
    rgb[int(rng.integers(size[0])), int(rng.integers(size[1]))] = (255, 255, 0)
    return _save(Image.fromarray(rgb), "PNG")


PLANE_DAMAGE: dict[str, Maker] = {
    **IMAGE_DAMAGE,
    **{f"{name} as a plane": maker for name, maker in ODD_IMAGES.items() if name != "rgb png"},
    "16-bit plane": deep_plane,
    "unknown label": unknown_label,
}
