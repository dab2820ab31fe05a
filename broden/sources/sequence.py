"""Any Python sequence of (image, labels): your own objects, or a torchvision.datasets segmentation set.

    source = SequenceSource("pets", dataset, {"object": {1: "pet", 2: "background", 3: "border"}})
    broden.build(broden.BuildSpec(sources=[source]), out)

An item is a pair (image, labels) or (image, mask). The image is a Pillow picture or an array [h, w, 3]. Labels are a
dict from category to a mask (array or Pillow picture of numbers), to a name, or to a list of names; a mask alone
is one of the only category in `names`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from broden.errors import InputFault
from broden.sources.base import Layer, Names, Sample, Source, numbered


class SequenceSource(Source):
    """See the module. `names` gives, by category, the name (or names) of every number in the masks; `ignore` numbers
    are unlabelled unless they are named.
    """

    def __init__(
        self,
        name: str,
        items: Sequence[Any],
        names: Mapping[str, Mapping[int, str | Names]] | None = None,
        ignore: Sequence[int] = (0, 255),
    ) -> None:
        super().__init__(name)
        self._items = items
        self._names: dict[str, dict[int, Names]] = {}
        for category, table in (names or {}).items():
            self._names[category] = {**numbered({}, ignore), **numbered(table, ())}

    def __len__(self) -> int:
        return len(self._items)

    def image_name(self, index: int) -> str:
        """See Source."""
        return f"{index:08d}"

    def read(self, index: int) -> Sample:
        """See Source."""
        where = f"{self.name}[{index}]"
        try:
            image, labels = self._items[index]
        except (TypeError, ValueError):
            raise InputFault(where, "item is not a pair (image, labels)") from None
        if hasattr(image, "convert"):
            image = image.convert("RGB")
        array = np.asarray(image)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
            raise InputFault(where, f"image is {array.dtype} {array.shape}; expected uint8 [h, w, 3]")
        sample = Sample(array, None)
        if not isinstance(labels, Mapping):
            if len(self._names) != 1:
                raise InputFault(where, "a mask alone needs exactly one category in names")
            labels = {next(iter(self._names)): labels}
        for category, value in labels.items():
            if isinstance(value, str):
                sample.scalars.append((category, (value,)))
            elif isinstance(value, (list, tuple)) and all(isinstance(item, str) for item in value):
                sample.scalars += [(category, (item,)) for item in value]
            else:
                mask = np.asarray(value)
                if mask.ndim != 2 or mask.dtype.kind not in "iu":
                    raise InputFault(
                        where, f"mask of {category} is {mask.dtype} {mask.shape}; expected integers [h, w]"
                    )
                if category not in self._names:
                    raise InputFault(where, f"no names for the masks of category {category!r}")
                sample.layers.append(Layer(category, mask, self._names[category], where))
        return sample
