"""ADE20K with its full annotation, and the SceneParsing-150 benchmark made from it."""

from __future__ import annotations

import re
from typing import Any

from broden.errors import DataError
from broden.sources import matlab
from broden.sources.base import FolderSource, Layer, Names, Sample, numbered, option, stem


class Ade20kSource(FolderSource):
    """ADE20K_2016_07_26: `images/**/NAME.jpg` with `NAME_seg.png` and `NAME_parts_1.png` ..., and index_ade20k.mat.

    A pixel's class is (R // 10) * 256 + G, an index from 1 into objectnames ("sofa, couch, lounge"); 0 is unlabelled.
    The scene is the index's `scene`, else the folder under training/<letter>/. Options: name, path, `index`.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(option(options, "name", str), option(options, "path", str))
        index = option(options, "index", str, "index_ade20k.mat")
        try:
            table = matlab.load(self.root.read(index, 2**31))["index"].reshape(-1)[0]
            objects = matlab.strings(table["objectnames"])
            files = matlab.strings(table["filename"])
            scenes = matlab.strings(table["scene"]) if "scene" in table else [""] * len(files)
        except OSError as error:
            raise DataError(self.where(index), None, str(getattr(error, "reason", error))) from None
        except (matlab.MatlabError, KeyError, AttributeError, IndexError) as error:
            raise DataError(self.where(index), None, f"not the index of ADE20K ({error})") from None
        self._names = numbered({number: split_names(text) for number, text in enumerate(objects, 1)})
        self._scenes = dict(zip(files, scenes, strict=False))
        self._images = [name for name in self.files("images", (".jpg",)) if self._annotated(name)]

    def _annotated(self, name: str) -> bool:
        return self.root.exists(f"images/{stem(name)}_seg.png")

    def __len__(self) -> int:
        return len(self._images)

    def image_name(self, index: int) -> str:
        """See Source."""
        return self._images[index].rpartition("/")[2]

    def read(self, index: int) -> Sample:
        """See Source."""
        name = self._images[index]
        sample = self.picture(f"images/{name}")
        self._layer(sample, "object", f"images/{stem(name)}_seg.png")
        level = 1
        while self.root.exists(file := f"images/{stem(name)}_parts_{level}.png"):
            self._layer(sample, "part", file)
            level += 1
        scene = self._scenes.get(name.rpartition("/")[2]) or _scene_of(name)
        if scene:
            sample.scalars.append(("scene", (scene.strip("/").split("/")[-1].replace("_", " "),)))
        return sample

    def _layer(self, sample: Sample, category: str, file: str) -> None:
        rgb = self.mask(file, channels=True).astype("int32")
        sample.layers.append(Layer(category, rgb[..., 0] // 10 * 256 + rgb[..., 1], self._names, file))


def _scene_of(name: str) -> str:
    """training/a/abbey/x.jpg -> abbey; training/a/airport/terminal/x.jpg -> airport terminal."""
    parts = name.split("/")[:-1]
    if len(parts) > 2 and len(parts[1]) == 1:
        parts = parts[2:]
    elif parts and parts[0] in ("training", "validation"):
        parts = parts[1:]
    return "" if parts in (["misc"], ["outliers"]) else " ".join(parts)


def split_names(text: str) -> Names:
    """ "sofa, couch, lounge" as a tuple."""
    return tuple(part for part in re.split(r",\s*", text.strip()) if part and part != "-")


class SceneParsingSource(FolderSource):
    """ADEChallengeData2016: images/<split>/NAME.jpg, annotations/<split>/NAME.png (0 = other, 1..150).

    Names come from objectInfo150.txt (tabs; first column the index, last the name), scenes from sceneCategories.txt.
    Options: name, path, `splits` (default training, validation).
    """

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(option(options, "name", str), option(options, "path", str))
        splits = option(options, "splits", list, ["training", "validation"])
        names: dict[int, str | Names] = {}
        for row, line in enumerate(self.text("objectInfo150.txt"), 1):
            cells = line.split("\t")
            if cells[0].strip().isdecimal():
                names[int(cells[0])] = split_names(cells[-1])
            elif row > 1 and line.strip():
                raise DataError(self.where("objectInfo150.txt"), row, f"no index in {line[:60]!r}")
        self._names = numbered(names)
        self._scenes: dict[str, str] = {}
        if self.root.exists("sceneCategories.txt"):
            for line in self.text("sceneCategories.txt"):
                image, _, scene = line.partition(" ")
                self._scenes[image] = scene.strip()
        self._images = [f"{split}/{name}" for split in splits for name in self.files(f"images/{split}", (".jpg",))]

    def __len__(self) -> int:
        return len(self._images)

    def image_name(self, index: int) -> str:
        """See Source."""
        return self._images[index].rpartition("/")[2]

    def read(self, index: int) -> Sample:
        """See Source."""
        name = self._images[index]
        sample = self.picture(f"images/{name}")
        file = f"annotations/{stem(name)}.png"
        sample.layers.append(Layer("object", self.mask(file), self._names, file))
        scene = self._scenes.get(stem(name).rpartition("/")[2], "")
        if scene and scene != "misc":
            sample.scalars.append(("scene", (scene.replace("_", " "),)))
        return sample
