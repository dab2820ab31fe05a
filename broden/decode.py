"""Bytes of a picture file to pixels, with a short list of decoders and no silent repair.

The rule for pictures (what torchvision's default loader gives, made explicit):

- JPEG, PNG, WebP and BMP only, one frame (the first picture of a multi-picture JPEG);
- grey and palette become RGB, CMYK is converted, alpha is dropped without blending;
- 16-bit grey keeps its high byte; 32-bit and float pictures have no defined range and are refused;
- an EXIF turn is not applied: label planes are aligned with the pixels as stored;
- a cut or damaged file is a fault, never a grey area: PNG chunks must pass their CRC, JPEG must reach its end.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

FORMATS = ("JPEG", "PNG", "WEBP", "BMP")
MAX_PIXELS = 64_000_000
"""No picture with more pixels is decoded, whatever its file says."""


class DecodeError(ValueError):
    """The bytes are not a usable picture; the text says why."""


_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Adam7: first column and row of each pass, and its steps."""


def _png_bytes(head: bytes) -> int:
    """Bytes that the deflated pixels of a PNG with this IHDR must have. Raises DecodeError."""
    width, height, depth, colour, _, _, interlace = struct.unpack(">IIBBBBB", head)
    if colour not in _CHANNELS:
        raise DecodeError(f"PNG of unknown colour type {colour}")
    bits = depth * _CHANNELS[colour]
    passes = _PASSES if interlace else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes]
    return sum(rows * (1 + (columns * bits + 7) // 8) for columns, rows in sizes if columns > 0 and rows > 0)


def _inflated(stream: zlib._Decompress, data: bytes, most: int) -> int:
    """Bytes that `data` inflates to, up to `most`; at most a megabyte of them exists at a time."""
    found = 0
    while data and found < most:
        found += len(stream.decompress(data, min(2**20, most - found)))
        data = stream.unconsumed_tail
    return found


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and stop of each PNG chunk up to IEND. Raises DecodeError for a wrong CRC or a cut file."""
    end = len(data)
    at = 8
    while True:
        if at + 12 > end:
            raise DecodeError("PNG is cut short")
        length = int.from_bytes(data[at : at + 4], "big")
        stop = at + 8 + length
        if stop + 4 > end:
            raise DecodeError("PNG is cut short")
        if zlib.crc32(data[at + 4 : stop]) != int.from_bytes(data[stop : stop + 4], "big"):
            raise DecodeError("PNG chunk fails its checksum")
        kind = data[at + 4 : at + 8]
        yield kind, at + 8, stop
        if kind == b"IEND":
            return
        at = stop + 4


def check_png(data: bytes) -> None:
    """Every chunk must be there and pass its CRC (Pillow looks at few of them). Raises DecodeError."""
    for _ in _chunks(data):
        pass


def check_png_pixels(data: bytes) -> None:
    """The pixels must all be there: Pillow takes a file that ends early and leaves the rest 0. Raises DecodeError."""
    wanted = -1
    found = 0
    stream = zlib.decompressobj()
    for kind, start, stop in _chunks(data):
        if kind == b"IHDR" and stop - start == 13:
            wanted = _png_bytes(data[start:stop])
        elif kind == b"IDAT" and found < wanted:
            try:
                found += _inflated(stream, data[start:stop], wanted - found)
            except zlib.error as error:
                raise DecodeError(f"PNG pixels cannot be inflated ({error})") from None
    if found < wanted or wanted < 0:
        raise DecodeError("PNG has fewer pixels than its header says")


def check_jpeg(data: bytes) -> None:
    """The end-of-image mark must follow the last scan (libjpeg would fill the gap with grey). Raises DecodeError."""
    scan = data.rfind(b"\xff\xda")
    if scan < 0 or data.rfind(b"\xff\xd9") < scan:
        raise DecodeError("JPEG is cut short")


def check_webp(data: bytes) -> None:
    """The RIFF length must be there. Raises DecodeError."""
    if len(data) < 12 or struct.unpack_from("<I", data, 4)[0] + 8 > len(data):
        raise DecodeError("WebP is cut short")


_SIGNATURES = ((b"\xff\xd8\xff", "JPEG"), (b"\x89PNG\r\n\x1a\n", "PNG"), (b"RIFF", "WEBP"), (b"BM", "BMP"))
_CHECKS = {"PNG": check_png, "JPEG": check_jpeg, "WEBP": check_webp}


def _check_size(height: int, width: int, expected: tuple[int, int] | None, max_pixels: int) -> None:
    """Judge a size before anything is decoded. Raises DecodeError."""
    if expected is not None and (height, width) != expected:
        raise DecodeError(f"{height} x {width} pixels (height x width); expected {expected[0]} x {expected[1]}")
    if height * width > max_pixels:
        raise DecodeError(f"{height} x {width} pixels; at most {max_pixels:,} are decoded")


def open_picture(
    data: bytes,
    formats: tuple[str, ...] = FORMATS,
    expected: tuple[int, int] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Identify and check a picture, of the (height, width) `expected`, without decoding it. Raises DecodeError."""
    if not data:
        raise DecodeError("file is empty")
    name = next((name for signature, name in _SIGNATURES if data.startswith(signature)), None)
    if name is None or name not in formats:
        raise DecodeError(f"not a picture of a known kind; expected {', '.join(formats)}")
    if name == "PNG" and len(data) > 33:  # the header comes first: no work for a bomb
        width, height = struct.unpack_from(">II", data, 16)
        _check_size(height, width, expected, max_pixels)
    check = _CHECKS.get(name)
    if check is not None:
        check(data)
    try:
        image = Image.open(io.BytesIO(data), formats=[name])
    except MemoryError:
        raise
    except Exception as error:  # damaged headers surface as a dozen types in Pillow's plug-ins
        raise DecodeError(f"cannot be read as {name} ({error or type(error).__name__})") from None
    _check_size(image.height, image.width, expected, max_pixels)
    if getattr(image, "n_frames", 1) != 1 and image.format != "MPO":
        raise DecodeError("animated; expected a single picture")
    return image


def _decoded(image: Image.Image, data: bytes) -> None:
    """Decode in place, and see that all pixels came. Raises DecodeError, and what Pillow raises."""
    image.load()
    # Rows come in order: if the last pixel is not 0, all are there, and the second inflation is saved.
    if image.format == "PNG" and not np.any(image.getpixel((image.width - 1, image.height - 1))):
        check_png_pixels(data)


def _load(image: Image.Image, mode: str, data: bytes) -> Image.Image:
    """Decode and convert to `mode`. Raises DecodeError."""
    try:
        _decoded(image, data)
        if image.mode == mode:
            return image
        if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
            grey = (np.asarray(image, dtype=np.int64) >> 8).clip(0, 255).astype(np.uint8)
            return Image.fromarray(grey).convert(mode)
        if image.mode in ("I", "F"):
            raise DecodeError(f"pixel type {image.mode} has no defined range; expected 8 or 16 bits")
        return image.convert(mode)
    except (MemoryError, DecodeError):
        raise
    except Exception as error:  # see open_picture
        raise DecodeError(f"cannot be decoded ({error or type(error).__name__})") from None


def pixels(
    data: bytes, expected: tuple[int, int] | None = None, size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """Decode a picture to RGB, uint8 [h, w, 3].

    `expected` is the (h, w) that the file must have; it is compared before anything is decoded. `size` squashes
    the picture to (h, w), bilinear with Pillow's antialiasing. Raises DecodeError.
    """
    image = _load(open_picture(data, expected=expected), "RGB", data)
    if size is not None and size != (image.height, image.width):
        image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width, 3)


def label_plane(data: bytes, expected: tuple[int, int] | None = None) -> NDArray[np.uint16]:
    """Decode a label plane, number = R + 256 G, to uint16 [H, W]. B is unused.

    Only an 8-bit RGB PNG is taken: any other kind of PNG (grey, palette, alpha, 16 bits) has no defined meaning
    as a label. Raises DecodeError.
    """
    image = open_picture(data, ("PNG",), expected)
    # Byte 24 is the bit depth: Pillow shows a 16-bit RGB file as 8-bit RGB.
    if image.mode != "RGB" or data[24] != 8 or "transparency" in image.info:
        raise DecodeError(f"label plane is a PNG of kind {image.mode} ({data[24]} bits); expected 8-bit RGB")
    # As RGBX each pixel is four bytes, of which the first two, little-endian, are R + 256 G.
    raw = _load(image, "RGB", data).tobytes("raw", "RGBX")
    return np.frombuffer(raw, "<u2")[::2].reshape(image.height, image.width).astype(np.uint16)


def mask(data: bytes) -> NDArray[np.integer]:
    """A mask as its values: [H, W] for grey (8 or 16 bits), two-tone and palette indices; [H, W, 3] for RGB.

    For label maps of other data sets. Palette colours are not looked at, alpha is refused. Raises DecodeError.
    """
    image = open_picture(data, ("PNG", "BMP"))
    if image.mode not in ("L", "P", "1", "RGB", "I") and not image.mode.startswith("I;16"):
        raise DecodeError(f"mask is a picture of kind {image.mode}; expected grey, palette or RGB")
    try:
        _decoded(image, data)
        array = np.asarray(image)
    except (MemoryError, DecodeError):
        raise
    except Exception as error:  # see open_picture
        raise DecodeError(f"cannot be decoded ({error or type(error).__name__})") from None
    return array.astype(np.uint8) if array.dtype == np.bool_ else array


def turned(data: bytes) -> NDArray[np.uint8]:
    """Like `pixels`, with the EXIF turn applied. Raises DecodeError."""
    image = ImageOps.exif_transpose(_load(open_picture(data), "RGB", data))
    return np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width, 3)


def encode_plane(plane: NDArray[np.integer], level: int = 6) -> bytes:
    """PNG bytes of a label plane [H, W], number = R + 256 G. Raises ValueError for numbers beyond 65,535."""
    if plane.size and (plane.min() < 0 or plane.max() > 65535):
        raise ValueError("label numbers must lie in 0..65535")
    rgb = np.zeros((*plane.shape, 3), np.uint8)
    rgb[..., 0] = plane & 255
    rgb[..., 1] = plane >> 8
    out = io.BytesIO()
    Image.fromarray(rgb).save(out, "PNG", compress_level=level)
    return out.getvalue()
