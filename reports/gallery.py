"""The gallery: pictures that were synthesised on networks, beside what was asked and how good they are."""

# ruff: noqa: RUF009 - `told` is dataclasses.field with a help text

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import images
from .environment import STATIC, page, static
from .folder import replaced
from .pages import Fact, told

ASIDE = "_gallery"  # folder beside the reports of the runs
SHEET_PX = 1600  # longest side of a sheet
PICTURE_PX = 224  # longest side of a single picture
SHOWN = 48  # single pictures of one synthesis
FILM_BYTES = 16 << 20
_AS_IS = {".svg", ".gif", ".mp4"}


@dataclass(frozen=True)
class GalleryPicture:
    """One picture, film or chart."""

    name: str = told("file name with its suffix: .png, .svg, .gif, .webp or .mp4")
    title: str = told("what it shows, in a few words; also its text for who cannot see it")
    note: str = told("how good it is", default="")
    read: Callable[[], bytes | None] = told("its bytes; None where the file is gone", default=lambda: None)


@dataclass(frozen=True)
class GalleryEntry:
    """One synthesis."""

    key: str = told("short name of its folder, unique on the page")
    title: str = told("heading")
    lead: str = told("the result in one sentence", default="")
    facts: tuple[Fact, ...] = told("what was asked and how, line by line", default=())
    sheets: tuple[GalleryPicture, ...] = told("sheets, charts and films, shown large", default=())
    pictures: tuple[GalleryPicture, ...] = told("single pictures", default=())


@dataclass(frozen=True)
class GalleryPage:
    """All that was synthesised in a workspace."""

    title: str = told("heading of the page")
    entries: tuple[GalleryEntry, ...] = told("newest first")


@dataclass(frozen=True)
class _Shown:
    title: str
    note: str
    src: str
    width: int
    height: int


def write_gallery(page_: GalleryPage, out: Path) -> Path:
    """Write `out`/_gallery with its pictures; the old one stays until the new one is complete."""
    with replaced(out / ASIDE) as new:
        for name in (*STATIC, "gallery.css"):
            if name != "report.js":
                (new / name).write_bytes(static(name))
        drawn = []
        for entry in page_.entries:
            sheets = [_put(new, entry.key, picture, SHEET_PX) for picture in entry.sheets]
            single = [_put(new, entry.key, picture, PICTURE_PX) for picture in entry.pictures[:SHOWN]]
            drawn.append((entry, sheets, single))
        html = page("gallery.html", page=page_, entries=drawn, root="")
        (new / "index.html").write_text(html, encoding="utf-8")
    return out / ASIDE / "index.html"


def _put(new: Path, key: str, picture: GalleryPicture, longest: int) -> _Shown:
    """Copy or shrink one file into the page's folder; an empty `src` where it cannot be shown."""
    data, suffix = picture.read(), Path(picture.name).suffix
    gone = _Shown(picture.title, picture.note, "", 0, 0)
    if data is None or len(data) > FILM_BYTES:
        return gone
    name = f"{key}/{picture.name.replace('/', '-')}"
    width, height = 0, 0
    if suffix not in _AS_IS:
        found = images.shrunk(data, longest)
        if found is None:
            return gone
        name = name if found[0] is data else name.removesuffix(suffix) + ".webp"
        data, width, height = found
    (new / key).mkdir(exist_ok=True)
    (new / name).write_bytes(data)
    return _Shown(picture.title, picture.note, name, width, height)
