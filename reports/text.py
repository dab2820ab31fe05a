"""Numbers and names as they are printed. Nothing here depends on the locale."""

import math
import re

NARROW = "\u202f"  # narrow no-break space: groups digits without a locale
SUFFIX = {"scene": "-s", "color": "-c"}
ORDER = ("object", "scene", "part", "material", "texture", "color")


def integer(value: int) -> str:
    """12345 -> 12 345 with narrow no-break spaces (from five digits on)."""
    value = int(value)
    return f"{value:,}".replace(",", NARROW) if abs(value) >= 10000 else str(value)


def iou(value: float, digits: int = 4) -> str:
    """IoU with four digits: enough to tell neighbours apart, short enough to read."""
    return f"{value:.{digits}f}"


def number(value: float | None) -> str:
    """A measured value: four significant digits."""
    if value is None or not math.isfinite(value):
        return "n/a"
    return f"{value:.4g}"


def signed(value: float | None) -> str:
    """A measured value with its sign."""
    told = number(value)
    return told if told == "n/a" else f"−{told[1:]}" if told.startswith("-") else f"+{told}"


def percent(share: float) -> str:
    """0.973 -> '97 %'; never 0 % or 100 % for what is neither."""
    whole = round(100 * share)
    if whole == 100 and share < 1:
        return "over 99 %"
    return "under 1 %" if whole == 0 and share > 0 else f"{whole} %"


def plural(count: int, one: str, many: str | None = None) -> str:
    """'1 unit', '2 units'."""
    return f"{integer(count)} {one if count == 1 else many or one + 's'}"


def shown(name: str, category: str) -> str:
    """A label as shown: the suffixes -s and -c of Broden's scenes and colours repeat the category and are left out."""
    suffix = SUFFIX.get(category)
    return name[: -len(suffix)] if suffix and name.endswith(suffix) and len(name) > len(suffix) else name


def slug(name: str) -> str:
    """A file name made of a name: at most 40 ASCII letters, digits, dots and dashes; never empty or a dot name."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip(".-")[:40].strip(".-") or "x"


def category_order(categories: tuple[str, ...]) -> tuple[str, ...]:
    """The published order (object, scene, part, material, texture, color); further categories follow as they come."""
    return tuple(c for c in ORDER if c in categories) + tuple(c for c in categories if c not in ORDER)
