"""Questions from a concept set: where an image shows a labelled concept, a map for that concept should lie there."""

from collections.abc import Iterator, Mapping

import numpy as np

import broden
from dissect.attribution.judge.table import Item
from dissect.attribution.targets import Target
from dissect.errors import SpecError
from dissect.suggest import suggestion


def concept_items(
    data: "broden.Dataset",
    targets: Mapping[str, Target],
    limit: int | None = None,
    area: tuple[float, float] = (0.005, 0.5),
) -> Iterator[Item]:
    """For every image and every concept of `targets` that it shows in a label plane: image, mask and the concept's
    target.

    The mask is the union of the planes that carry the label, enlarged to the image (nearest). area: concepts that cover
    less or more of the image make no question. limit: questions a concept. Broken images are passed over.
    Raises SpecError for a concept that the set does not have.
    """
    names = {name: number for number, name in enumerate(data.labels.names) if name}
    wanted: dict[int, Target] = {}
    for name, target in targets.items():
        if name not in names:
            hint = suggestion(name, tuple(names), "`python -m broden info` lists them")
            raise SpecError(f"the set {data.name!r} has no concept {name!r}{hint}")
        wanted[names[name]] = target
    left = {number: limit if limit is not None else len(data) for number in wanted}
    for position in range(len(data)):
        if not any(left.values()):
            return
        try:
            planes = data.read_labels(position).planes
        except broden.InputFault:
            continue
        present = set(np.unique(planes).tolist()) if planes.size else set()
        for number, target in wanted.items():
            if number not in present or not left[number]:
                continue
            small = (planes == number).any(0)
            if not area[0] <= small.mean() <= area[1]:
                continue
            try:
                image = data.read_image(position)
            except broden.InputFault:
                break
            height, width = image.shape[:2]
            rows = np.arange(height) * small.shape[0] // height
            columns = np.arange(width) * small.shape[1] // width
            left[number] -= 1
            yield Item(
                image,
                small[rows[:, None], columns[None, :]],
                target,
                f"{data.rows[position].image} {data.labels.names[number]}",
            )
