"""A small Broden-format folder written by hand, for tests that damage it."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

TABLES: dict[str, str] = {
    "category.csv": "name,first,last,count,frequency\ncolor,1,2,2,6\nobject,3,4,2,4\npart,4,4,1,2\nscene,5,5,1,2\n",
    "label.csv": (
        "number,name,category,frequency,coverage,syns\n"
        "1,red-c,color(4),4,2.0,\n2,blue-c,color(2),2,1.0,azure-c\n3,car,object(3),3,0.5,auto;motorcar\n"
        "4,door,object(1);part(2),3,0.6,\n5,street-s,scene(2),2,2.0,\n"
    ),
    "c_color.csv": "code,number,name,frequency,coverage\n1,1,red-c,4,2.0\n2,2,blue-c,2,1.0\n",
    "c_object.csv": "code,number,name,frequency,coverage\n1,3,car,3,0.5\n2,4,door,1,0.3\n",
    "c_part.csv": "code,number,name,frequency,coverage\n1,4,door,2,0.3\n",
    "c_scene.csv": "code,number,name,frequency,coverage\n1,5,street-s,2,2.0\n",
}
HEADER = "image,split,ih,iw,sh,sw,color,object,part,scene\n"
ROWS = [f"s/i{n}.jpg,{'train' if n % 3 else 'val'},16,16,8,8,s/i{n}_color.png,s/i{n}_object.png,,5\n" for n in range(6)]
ROWS[1] = "s/i1.jpg,train,16,16,8,8,s/i1_color.png,s/i1_object.png,s/i1_part_1.png;s/i1_part_2.png,\n"
ROWS[2] = "s/i2.jpg,train,16,16,8,8,,,,\n"


def jpeg(seed: int, size: tuple[int, int] = (16, 16)) -> bytes:
    """A JPEG file of random blocks."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=90)
    return out.getvalue()


def png(array: np.ndarray, **options: object) -> bytes:
    """PNG bytes of an array in the mode that Pillow derives from it."""
    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG", **options)
    return out.getvalue()


def plane(numbers: np.ndarray) -> bytes:
    """A label plane by the published rule, R + 256 G."""
    return png(np.stack([numbers % 256, numbers // 256, numbers * 0], -1).astype(np.uint8))


def small(root: Path, tables: Mapping[str, str | bytes | None] | None = None) -> Path:
    """Write the set under `root`; `tables` replaces (or, with None, leaves out) whole CSV files."""
    files: dict[str, str | bytes | None] = {**TABLES, "index.csv": HEADER + "".join(ROWS), **(tables or {})}
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        if text is not None:
            (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    folder = root / "images" / "s"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for n in range(6):
        (folder / f"i{n}.jpg").write_bytes(jpeg(n))
        (folder / f"i{n}_color.png").write_bytes(plane(rng.integers(1, 3, (8, 8))))
        (folder / f"i{n}_object.png").write_bytes(plane(rng.choice([0, 3, 4], (8, 8))))
    for k in (1, 2):
        (folder / f"i1_part_{k}.png").write_bytes(plane(rng.choice([0, 4], (8, 8))))
    return root
