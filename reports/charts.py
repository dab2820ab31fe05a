"""Geometry of the charts. Templates draw what is laid out here; the page's script lays out the same bars again."""

from dataclasses import dataclass

from .order import Bar

WIDTH = 1040
PITCH = (15, 24)  # least and largest distance of bars
RISE = 92  # height of the tallest bar
HEAD = 34  # room for the category caption and the count over the tallest bar
GAP = 14  # between categories
SLANT = 4.1  # how far a character of a slanted label reaches left and down
LONGEST = 17  # characters of a label in the chart; the whole label is in its title and in the table
MOST = 240  # bars drawn, those of most units; the table beside the chart has them all


@dataclass(frozen=True)
class Column:
    """One bar, in chart units."""

    bar: Bar
    x: int
    y: int
    height: float
    solid: float
    text: str


@dataclass(frozen=True)
class Band:
    """The bars of one category within one row of the chart."""

    category: str
    hue: int
    caption: str
    x: int
    y: int
    width: int
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class BarChart:
    """The bar graph of a layer."""

    width: int
    height: int
    pitch: int
    foot: int
    bands: tuple[Band, ...]
    left_out: int


def clipped(text: str, length: int = LONGEST) -> str:
    """The text, or its beginning and an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def tallest(bars: list[Bar], most: int) -> list[Bar]:
    """So many bars with the most units, then the best IoU, in the order in which they were."""
    if len(bars) <= most:
        return bars
    kept = sorted(range(len(bars)), key=lambda at: (-bars[at].units, -bars[at].best))[:most]
    return [bars[at] for at in sorted(kept)]


def bar_chart(
    bars: list[Bar], hues: dict[str, int], names: dict[int, str], width: int = WIDTH, most: int = MOST
) -> BarChart:
    """Bars in the given order, wrapped into rows; at most `most` of them."""
    drawn = tallest(bars, most)
    if not drawn:
        return BarChart(width, 0, PITCH[1], 0, (), 0)
    labels = [clipped(names[b.concept.number]) for b in drawn]
    totals: dict[str, int] = {}
    for b in bars:
        totals[b.concept.category] = totals.get(b.concept.category, 0) + 1
    top = max(b.units for b in drawn)
    pitch = min(max((width - 60 - 30 * len(totals)) // len(drawn), PITCH[0]), PITCH[1])
    foot = 16 + round(SLANT * max(len(label) for label in labels))
    bands: list[Band] = []
    row, x, at = -1, width, 0
    while at < len(drawn):
        category = drawn[at].concept.category
        first = not bands or bands[-1].category != category
        caption = f"{category} {totals[category]}" if first else category
        wide = round(6.3 * len(caption)) + 6
        rest = sum(b.concept.category == category for b in drawn[at:]) * pitch
        if x + max(wide, rest if rest < width - 80 else pitch) > width:
            row += 1  # a category stays in one row if a row can hold it; a row leaves room for its first labels
            x = max(6, *(round(SLANT * len(t) - (k + 0.5) * pitch) + 4 for k, t in enumerate(labels[at : at + 6])))
        begin, y, columns = x, row * (HEAD + RISE + foot), []
        while at < len(drawn) and drawn[at].concept.category == category and x + pitch <= width:
            height = round(max(drawn[at].units / top * RISE, 1.0), 1)
            solid = round(height * drawn[at].sure / drawn[at].units, 1)
            columns.append(Column(drawn[at], x, y, height, solid, labels[at]))
            at, x = at + 1, x + pitch
        x = max(x, begin + wide)
        bands.append(Band(category, hues.get(category, 6), caption, begin, y, x - begin, tuple(columns)))
        x += GAP
    return BarChart(width, (row + 1) * (HEAD + RISE + foot), pitch, foot, tuple(bands), len(bars) - len(drawn))


@dataclass(frozen=True)
class Line:
    """One series of the depth chart."""

    name: str
    hue: int
    points: str
    values: tuple[int, ...]
    marks: tuple[tuple[float, float], ...]
    label_y: float


@dataclass(frozen=True)
class DepthChart:
    """Detectors by depth and category."""

    width: int
    height: int
    xs: tuple[tuple[float, str], ...]
    ticks: tuple[tuple[float, int], ...]
    lines: tuple[Line, ...]
    right: float


def ticks(top: int) -> list[int]:
    """Values of an axis from 0 to top: round steps, six at most."""
    step = 1
    while top / step > 5:
        step = step * 5 // 2 if str(step)[0] == "2" else step * 2
    return list(range(0, top + 1, step))


def depth_chart(layers: list[str], series: dict[str, list[int]], hues: dict[str, int]) -> DepthChart:
    """Lines over the layers, one per category, each named at its right end."""
    height, left, right, upper, lower = 300, 46, WIDTH - 130, 14, 44
    top = max((v for values in series.values() for v in values), default=1) or 1
    span = max(len(layers) - 1, 1)
    xs = [left + 20 + (right - left - 30) * i / span for i in range(len(layers))]

    def y(value: float) -> float:
        return round(height - lower - value / top * (height - lower - upper), 1)

    ends = sorted(series, key=lambda name: -series[name][-1])
    label_y: dict[str, float] = {}
    last = -99.0
    for name in ends:
        last = max(y(series[name][-1]) + 4, last + 15)
        label_y[name] = last
    floor = height - lower + 4.0
    for name in reversed(ends):  # names that would slide under the axis push those above them up
        label_y[name] = floor = min(label_y[name], floor)
        floor -= 15
    lines = tuple(
        Line(
            name,
            hues.get(name, 6),
            " ".join(f"{x:.1f},{y(v)}" for x, v in zip(xs, values)),
            tuple(values),
            tuple((round(x, 1), y(v)) for x, v in zip(xs, values)),
            label_y[name],
        )
        for name, values in series.items()
    )
    marks = tuple((y(v), v) for v in ticks(top))
    return DepthChart(
        WIDTH, height, tuple((round(x, 1), clipped(n, 16)) for x, n in zip(xs, layers)), marks, lines, right
    )
