"""Small copies of the real layouts on disk of the data sets that `broden.sources` reads.

Each maker writes under `root`, from the published format descriptions, and returns for every image what its labels
are: {image name: {category: {name: mask or True for the whole image}}}.
"""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from . import makers

H, W = 30, 40
Truth = dict[str, dict[str, dict[str, Any]]]


def rng(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def put(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def photo(path: Path, seed: int, size: tuple[int, int] = (H, W)) -> None:
    put(
        path,
        makers.jpeg(seed, size)
        if path.suffix == ".jpg"
        else makers.png(rng(seed).integers(0, 256, (*size, 3), np.uint8)),
    )


def blocks(seed: int, values: list[int], size: tuple[int, int] = (H, W)) -> np.ndarray:
    """Blocks of 10 x 10 of the given values; all of them occur."""
    small = rng(seed).choice(values, (size[0] // 10, size[1] // 10))
    small.reshape(-1)[: len(values)] = values
    return np.repeat(np.repeat(small, 10, 0), 10, 1)


def truth(numbers: np.ndarray, names: dict[int, str]) -> dict[str, Any]:
    return {name: numbers == number for number, name in names.items() if (numbers == number).any()}


def voc(root: Path) -> Truth:
    found: Truth = {}
    put(root / "ImageSets/Segmentation/trainval.txt", "2007_000001\n2007_000002\n")
    for seed, name in enumerate(("2007_000001", "2007_000002")):
        photo(root / f"JPEGImages/{name}.jpg", seed)
        numbers = blocks(seed, [0, 1, 15, 255])
        image = Image.fromarray(numbers.astype(np.uint8), "P")
        image.putpalette(list(range(256)) * 3)
        out = io.BytesIO()
        image.save(out, "PNG")
        put(root / f"SegmentationClass/{name}.png", out.getvalue())
        found[name] = {"object": truth(numbers, {1: "airplane", 15: "person"})}
    return found


def sceneparsing(root: Path) -> Truth:
    put(
        root / "objectInfo150.txt",
        "Idx\tRatio\tTrain\tVal\tName\n1\t0.1\t1\t1\twall\n2\t0.1\t1\t1\tbuilding, edifice\n",
    )
    put(root / "sceneCategories.txt", "ADE_train_00000001 airport_terminal\nADE_val_00000001 misc\n")
    found: Truth = {}
    for seed, (split, name) in enumerate((("training", "ADE_train_00000001"), ("validation", "ADE_val_00000001"))):
        photo(root / f"images/{split}/{name}.jpg", seed)
        numbers = blocks(seed, [0, 1, 2])
        put(root / f"annotations/{split}/{name}.png", makers.png(numbers.astype(np.uint8)))
        found[f"{name}.jpg"] = {"object": truth(numbers, {1: "wall", 2: "building"})}
    found["ADE_train_00000001.jpg"]["scene"] = {"airport terminal-s": True}
    return found


def mat(variables: dict[str, Any], compress: bool = True) -> bytes:
    """A MATLAB 5 file of numbers, text, lists (cell arrays) and lists of dicts (struct arrays, "struct" key)."""

    def element(kind: int, data: bytes) -> bytes:
        if 0 < len(data) <= 4:
            return struct.pack("<HH", kind, len(data)) + data.ljust(4, b"\0")
        return struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 8)

    def matrix(name: str, value: Any) -> bytes:
        def head(kind: int, shape: tuple[int, ...]) -> bytes:
            parts = element(6, struct.pack("<II", kind, 0)) + element(5, struct.pack(f"<{len(shape)}i", *shape))
            return parts + element(1, name.encode())

        if isinstance(value, str):
            body = head(4, (1, len(value))) + element(16, value.encode())
        elif isinstance(value, np.ndarray):
            kinds = {"uint8": (9, 2), "uint16": (11, 4), "float64": (6, 9)}
            kind, store = kinds[value.dtype.name]
            body = head(kind, value.shape) + element(store, value.tobytes(order="F"))
        elif isinstance(value, dict):  # struct array 1 x N
            items = value["struct"]
            fields = list(items[0]) if items else ["mask"]
            body = head(2, (1, len(items))) + element(5, struct.pack("<i", 32))
            body += element(1, b"".join(field.encode().ljust(32, b"\0") for field in fields))
            body += b"".join(matrix("", item[field]) for item in items for field in fields)
        else:
            body = head(1, (1, len(value))) + b"".join(matrix("", item) for item in value)
        return struct.pack("<II", 14, len(body)) + body

    out = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x0100) + b"IM"
    for name, value in variables.items():
        whole = matrix(name, value)
        if compress:
            packed = zlib.compress(whole)
            whole = struct.pack("<II", 15, len(packed)) + packed
        out += whole
    return out


def ade20k(root: Path) -> Truth:
    names = [f"thing {n}" for n in range(1, 301)]
    names[0], names[299] = "wall", "sofa, couch, lounge"
    index = {"filename": ["ADE_train_00000001.jpg", "ADE_train_00000002.jpg"], "objectnames": names}
    index["scene"] = ["abbey", ""]
    put(root / "index_ade20k.mat", mat({"index": {"struct": [index]}}))
    found: Truth = {}
    for seed, (folder, name) in enumerate(
        (("a/abbey", "ADE_train_00000001"), ("a/airport/terminal", "ADE_train_00000002"))
    ):
        base = root / "images/training" / folder
        photo(base / f"{name}.jpg", seed)

        def encode(numbers: np.ndarray) -> bytes:
            rgb = np.stack([numbers // 256 * 10, numbers % 256, numbers * 0 + 7], -1)
            return makers.png(rgb.astype(np.uint8))

        numbers, part = blocks(seed, [0, 1, 300]), blocks(seed + 10, [0, 5])
        put(base / f"{name}_seg.png", encode(numbers))
        put(base / f"{name}_parts_1.png", encode(part))
        found[f"{name}.jpg"] = {"object": truth(numbers, {1: "wall", 300: "sofa"}), "part": truth(part, {5: "thing 5"})}
    found["ADE_train_00000001.jpg"]["scene"] = {"abbey-s": True}
    found["ADE_train_00000002.jpg"]["scene"] = {"airport terminal-s": True}
    return found


def context(root: Path) -> Truth:
    put(root / "labels.txt", "0: empty\n2: airplane\n400: unknown\n459: wood\n")
    found: Truth = {}
    for seed, name in enumerate(("2008_000002", "2008_000003")):
        photo(root / f"JPEGImages/{name}.jpg", seed)
        numbers = blocks(seed, [2, 400, 459])
        put(root / f"trainval/{name}.mat", mat({"LabelMap": numbers.astype(np.uint16)}, compress=seed == 0))
        found[name] = {"object": truth(numbers, {2: "airplane", 459: "wood"})}
    return found


def part(root: Path) -> Truth:
    photo(root / "JPEGImages/2008_000008.jpg", 0)
    body = np.zeros((H, W), np.uint8)
    body[5:25, 5:35] = 1
    left, right, head = body * 0, body * 0, body * 0
    left[5:15, 5:15], right[5:15, 20:30], head[5:20, 5:30] = 1, 1, 1
    parts = [
        {"part_name": "leye", "mask": left},
        {"part_name": "reye", "mask": right},
        {"part_name": "engine_2", "mask": head},
    ]
    objects = [
        {"class": "aeroplane", "class_ind": np.array([[1.0]]), "mask": body, "parts": {"struct": parts}},
        {"class": "dog", "class_ind": np.array([[12.0]]), "mask": 1 - body, "parts": np.zeros((0, 0))},
    ]
    anno = {"imname": "2008_000008", "objects": {"struct": objects}}
    put(root / "Annotations_Part/2008_000008.mat", mat({"anno": {"struct": [anno]}}))
    objects_truth = {"airplane": body > 0, "dog": body == 0}
    return {"2008_000008": {"object": objects_truth, "part": {"eye": (left | right) > 0, "engine": head > 0}}}


def opensurfaces(root: Path) -> Truth:
    put(
        root / "label-substance-colors.csv", "red_color,substance_id,substance_name\n3,9,Carpet/rug\n7,2,~not on list\n"
    )
    put(root / "label-name-colors.csv", "green_color,name_id,name_name\n1,1,Chair\n")
    put(root / "photos.csv", "photo_id,scene_category_name\n12,kitchen\n13,~unknown\n")
    found: Truth = {}
    for seed, name in enumerate(("12", "13")):
        photo(root / f"photos/{name}.jpg", seed, (60, 80))
        numbers = blocks(seed, [0, 3, 7])
        put(
            root / f"photos-labels/{name}.png",
            makers.png(np.stack([numbers, numbers * 0, numbers * 0], -1).astype(np.uint8)),
        )
        found[name] = {"material": truth(numbers, {3: "carpet"})}
    found["12"]["scene"] = {"kitchen-s": True}
    return found


def dtd(root: Path) -> Truth:
    put(root / "labels/labels_joint_anno.txt", "banded/banded_0002.jpg banded lined \ndotted/dotted_0001.jpg dotted \n")
    photo(root / "images/banded/banded_0002.jpg", 0)
    photo(root / "images/dotted/dotted_0001.jpg", 1)
    return {
        "banded_0002.jpg": {"texture": {"banded": True, "lined": True}},
        "dotted_0001.jpg": {"texture": {"dotted": True}},
    }


def rle_text(counts: list[int]) -> str:
    """COCO's compressed form, written from its description."""
    text = ""
    for place, count in enumerate(counts):
        value = count - counts[place - 2] if place > 2 else count
        more = True
        while more:
            five = value & 31
            value >>= 5
            more = not (value == 0 and not five & 16) and not (value == -1 and five & 16)
            text += chr(48 + (five | (32 if more else 0)))
    return text


def counts_of(mask: np.ndarray) -> list[int]:
    flat = mask.T.reshape(-1).astype(int)
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
    return [0, *counts] if flat[0] else counts


def coco(root: Path, kind: str = "instances") -> Truth:
    found: Truth = {}
    images, annotations = [], []
    names = {1: "person", 3: "car", 183: "other"}
    for seed, number in enumerate((139, 285)):
        name = f"{number:012d}.jpg"
        photo(root / f"val2017/{name}", seed)
        images.append({"id": number, "file_name": name, "height": H, "width": W})
        person, car = blocks(seed, [0, 1]) > 0, np.zeros((H, W), bool)
        car[10:21, 5:26] = True
        forms = [
            {"size": [H, W], "counts": rle_text(counts_of(person))},
            {"size": [H, W], "counts": counts_of(car)} if seed else [[5, 10, 25, 10, 25, 20, 5, 20]],
        ]
        for category, form in zip((1, 3), forms, strict=True):
            annotations.append(
                {"id": len(annotations), "image_id": number, "category_id": category, "segmentation": form}
            )
        found[name] = {"object": {"person": person, "car": car}}
    categories = [{"id": n, "name": name} for n, name in names.items()]
    content = {"images": images, "categories": categories, "annotations": annotations}
    put(root / f"annotations/{kind}_val2017.json", json.dumps(content))
    return found


def coco_stuff(root: Path) -> Truth:
    return coco(root, "stuff")


def panoptic(root: Path) -> Truth:
    found: Truth = {}
    images, annotations = [], []
    for seed, number in enumerate((139, 285)):
        name = f"{number:012d}"
        photo(root / f"val2017/{name}.jpg", seed)
        images.append({"id": number, "file_name": f"{name}.jpg", "height": H, "width": W})
        numbers = blocks(seed, [0, 1, 300, 70000])
        rgb = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], -1)
        put(root / f"annotations/panoptic_val2017/{name}.png", makers.png(rgb.astype(np.uint8)))
        segments = [{"id": n, "category_id": c} for n, c in ((1, 1), (300, 1), (70000, 8))]
        annotations.append({"image_id": number, "file_name": f"{name}.png", "segments_info": segments})
        person = (numbers == 1) | (numbers == 300)
        found[f"{name}.jpg"] = {"object": {"person": person, "truck": numbers == 70000}}
    categories = [{"id": 1, "name": "person", "isthing": 1}, {"id": 8, "name": "truck", "isthing": 1}]
    content = {"images": images, "categories": categories, "annotations": annotations}
    put(root / "annotations/panoptic_val2017.json", json.dumps(content))
    return found


def cityscapes(root: Path) -> Truth:
    found: Truth = {}
    for seed, (split, name) in enumerate((("train", "aachen_000000_000019"), ("val", "ulm_000001_000019"))):
        city = name.split("_")[0]
        photo(root / f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png", seed)
        numbers = blocks(seed, [0, 3, 7, 26, 255])
        put(root / f"gtFine/{split}/{city}/{name}_gtFine_labelIds.png", makers.png(numbers.astype(np.uint8)))
        found[name] = {"object": truth(numbers, {7: "road", 26: "car"})}
    return found


def camvid(root: Path) -> Truth:
    colours = {0: (0, 0, 0), 1: (128, 128, 128), 2: (64, 0, 128)}
    put(root / "label_colors.txt", "0 0 0\t\tVoid\n128 128 128\tSky\n64 0 128\t\tCar\n")
    found: Truth = {}
    for seed, name in enumerate(("0001TP_006690", "0001TP_006720")):
        photo(root / f"701_StillsRaw_full/{name}.png", seed)
        numbers = blocks(seed, [0, 1, 2])
        rgb = np.array([colours[n] for n in range(3)], np.uint8)[numbers]
        put(root / f"LabeledApproved_full/{name}_L.png", makers.png(rgb))
        found[f"{name}.png"] = {"object": truth(numbers, {1: "sky", 2: "car"})}
    return found


def plain(root: Path) -> Truth:
    put(root / "labels.csv", "category,number,name\nobject,1,Car;motorcar\nobject,2,tree\npart,7,wheel\nobject,9,\n")
    put(root / "images.csv", "image,category,name\na/1.jpg,scene,street\n")
    found: Truth = {}
    for seed, name in enumerate(("a/1", "b")):
        photo(root / f"images/{name}.jpg", seed)
        numbers, wheel = blocks(seed, [0, 1, 2, 9]), blocks(seed + 5, [0, 7])
        put(root / f"masks/object/{name}.png", makers.png(numbers.astype(np.uint8)))
        put(root / f"masks/part/{name}_1.png", makers.png(wheel.astype(np.uint16)))
        found[f"{name}.jpg"] = {"object": truth(numbers, {1: "car", 2: "tree"}), "part": truth(wheel, {7: "wheel"})}
    found["a/1.jpg"]["scene"] = {"street-s": True}
    return found


def tar(root: Path) -> Truth:
    put(root / "labels.json", json.dumps({"object": {"1": "car", "2": "tree"}}))
    found: Truth = {}
    root.mkdir(parents=True, exist_ok=True)
    with tarfile.open(root / "shard-000.tar", "w") as archive:
        for seed, name in enumerate(("x/0001", "x/0002")):
            numbers = blocks(seed, [0, 1, 2])
            members = {
                "jpg": makers.jpeg(seed, (H, W)),
                "object.png": makers.png(numbers.astype(np.uint8)),
                "json": b'{"texture": "dotted"}',
                "cls": b"street\n",
            }
            for suffix, data in members.items():
                info = tarfile.TarInfo(f"./{name}.{suffix}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
            found[name] = {
                "object": truth(numbers, {1: "car", 2: "tree"}),
                "texture": {"dotted": True},
                "scene": {"street-s": True},
            }
    return found


def parquet(root: Path) -> Truth:
    import pyarrow as pa
    import pyarrow.parquet as pq

    found: Truth = {}
    rows: dict[str, list[Any]] = {"image": [], "annotation": [], "scene": []}
    for seed in range(3):
        numbers = blocks(seed, [0, 1, 2])
        rows["image"].append({"bytes": makers.jpeg(seed, (H, W)), "path": None})
        rows["annotation"].append({"bytes": makers.png(numbers.astype(np.uint8)), "path": "../../x"})
        rows["scene"].append(seed % 2)
        scene = {"scene": {"street-s": True}} if seed % 2 else {"scene": {"kitchen-s": True}}
        found[f"{seed:08d}"] = {"object": truth(numbers, {1: "wall", 2: "building"}), **scene}
    root.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(rows), root / "train-00000.parquet", row_group_size=2)
    return found


def broden_set(root: Path) -> Truth:
    makers.small(root)
    found: Truth = {}
    names = {3: "car", 4: "door"}
    for n in range(6):
        found[f"s/i{n}.jpg"] = {}
        if n != 2:
            with Image.open(root / f"images/s/i{n}_object.png") as image:
                found[f"s/i{n}.jpg"]["object"] = truth(np.asarray(image)[..., 0], names)
        if n not in (1, 2):
            found[f"s/i{n}.jpg"]["scene"] = {"street-s": True}
    masks = []
    for k in (1, 2):
        with Image.open(root / f"images/s/i1_part_{k}.png") as image:
            masks.append(np.asarray(image)[..., 0] == 4)
    found["s/i1.jpg"]["part"] = {"door": masks[0] | masks[1]}
    return found


HF = {
    "masks": {"annotation": "object"},
    "labels": {"object": {"1": "wall", "2": "building"}, "scene": {"0": "kitchen", "1": "street"}},
    "scalars": {"scene": "scene"},
}
LAYOUTS: dict[str, tuple[Callable[[Path], Truth], dict[str, Any]]] = {
    "broden": (broden_set, {}),
    "ade20k": (ade20k, {}),
    "sceneparsing": (sceneparsing, {}),
    "voc": (voc, {}),
    "pascal-context": (context, {}),
    "pascal-part": (part, {}),
    "opensurfaces": (opensurfaces, {"scenes": True}),
    "dtd": (dtd, {}),
    "coco-instances": (coco, {}),
    "coco-stuff": (coco_stuff, {}),
    "coco-panoptic": (panoptic, {}),
    "cityscapes": (cityscapes, {}),
    "camvid": (camvid, {}),
    "folder": (plain, {}),
    "parquet": (parquet, HF),
    "tar": (tar, {}),
}
