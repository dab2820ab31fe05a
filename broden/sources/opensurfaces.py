"""OpenSurfaces as its release script renders it: photos/ID.jpg, photos-labels/ID.png, photos.csv, label-*.csv.

In the label picture R is the substance (material), G the name (object); label-substance-colors.csv and
label-name-colors.csv give the codes; 0 is unlabelled. Labels have their own resolution.
"""

from __future__ import annotations

from typing import Any

from broden.errors import DataError
from broden.sources.base import FolderSource, Layer, Names, Sample, option
from broden.tables import read_table


class OpenSurfacesSource(FolderSource):
    """Options: name, path, `objects` (default false: only materials, as Broden does), `scenes` (default false)."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(option(options, "name", str), option(options, "path", str))
        self._objects = option(options, "objects", bool, False)
        scenes = option(options, "scenes", bool, False)
        self._materials = self._codes("label-substance-colors.csv", "red_color", "substance_name")
        self._things = self._codes("label-name-colors.csv", "green_color", "name_name") if self._objects else {}
        columns = ("photo_id", "scene_category_name") if scenes else ("photo_id",)
        self._photos: list[tuple[str, str]] = []
        for record in read_table(self.root, "photos.csv", columns):
            photo = record.text("photo_id")
            if not photo.isdecimal():
                raise record.error(f"photo_id is {photo[:40]!r}; expected a number")
            # Names that begin with ~ mean unlabelled there.
            scene = record.text("scene_category_name") if scenes else ""
            self._photos.append((photo, "" if scene.startswith("~") else scene))

    def _codes(self, file: str, code: str, name: str) -> dict[int, Names]:
        names: dict[int, Names] = {0: ()}
        for record in read_table(self.root, file, (code, name)):
            text = record.text(name)
            words = tuple(part.strip() for part in text.split("/") if part.strip())
            number = record.integer(code, 0, 255)
            if number in names and number:
                raise DataError(self.where(file), record.line, f"code {number} stands there twice")
            names[number] = () if not number or text.startswith("~") else words
        return names

    def __len__(self) -> int:
        return len(self._photos)

    def image_name(self, index: int) -> str:
        """See Source."""
        return self._photos[index][0]

    def read(self, index: int) -> Sample:
        """See Source."""
        photo, scene = self._photos[index]
        sample = self.picture(f"photos/{photo}.jpg")
        file = f"photos-labels/{photo}.png"
        codes = self.mask(file, channels=True)
        sample.layers.append(Layer("material", codes[..., 0], self._materials, file, scaled=True))
        if self._objects:
            sample.layers.append(Layer("object", codes[..., 1], self._things, file, scaled=True))
        if scene:
            sample.scalars.append(("scene", (scene,)))
        return sample
