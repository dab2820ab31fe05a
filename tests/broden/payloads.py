"""Some three hundred names that try to leave a folder, by `..`, absolute paths, links, NUL, devices, Unicode."""

from __future__ import annotations

SECRET = "secret.png"


def text_payloads(outside: str) -> list[str]:
    """Names to stand in index.csv; `outside` is the absolute path of the folder beside the set."""
    there = f"outside/{SECRET}"
    up = [f"{start}{'../' * depth}{there}" for depth in range(1, 9) for start in ("", "s/")]
    up += [f"./../../{there}", f"s/./.././../../{there}", f"s//../../../{there}", "..", "../", "."]
    absolute = [f"{head}{outside}/{SECRET}" for head in ("", "/", "//", "file://", "C:")]
    absolute += [
        "/etc/passwd",
        "/",
        "//server/share/x.png",
        "C:\\Windows\\win.ini",
        "\\\\server\\share\\x.png",
        "c:x.png",
    ]
    absolute += ["\\\\?\\C:\\x.png", "\\\\.\\C:\\x.png", "~/x.png", "~root/x.png", "$HOME/x.png", "%2e%2e/%2e%2e/x.png"]
    devices = ["/dev/zero", "/dev/stdin", "/dev/tty", "/dev/fd/0"]
    devices += ["/proc/self/mem", "/proc/self/environ", "/proc/self/cwd/x"]
    for name in ("CON", "PRN", "AUX", "NUL", "COM1", "LPT1", "CONIN$"):
        devices += [name + end for end in ("", ".png", ":", "/x.png")]
    control = [f"s/i0.jpg{chr(code)}" for code in (*range(32), 127, 0x85, 0x2028, 0x2029)]
    control += [f"../../{there}\0.jpg", f"s/i0.jpg\0/../../../{there}", "\0", "s\0/i0.jpg"]
    dots = ["..", "\uff0e\uff0e", "\u2025", "\u2024\u2024", "\ufe52\ufe52", "\u3002\u3002", ".\u200b.", ".\u00ad."]
    dots += ["\u2026", "\u202e..", "\u0323..", "..\ufe0f"]
    slashes = ["/", "\uff0f", "\u2215", "\u2044", "\u29f8", "\\", "\uff3c", "\u2216", "\ufe68", "%2f", "%5c", "\u2571"]
    unicode = [f"{dot}{slash}{dot}{slash}outside{slash}{SECRET}" for dot in dots for slash in slashes]
    odd = ["s/" * 400 + "x.png", "x" * 300 + ".png", "x" * 5000, " ", "s/ ", " /x.png"]
    odd += ["s/i0.jpg/", "s/i0.jpg/.", "s/i0.jpg/..", "-rf", "|cat", ";rm", "`id`", "$(id)", "s/i0.jpg?x", "s/i0.jpg#x"]
    odd += ["*", "s/*.jpg", "[a]", "\ud7ff", "I\u0307.png", "\u212a.png"]
    return list(dict.fromkeys([*up, *absolute, *devices, *control, *unicode, *odd]))


def link_payloads(outside: str) -> list[tuple[str, str]]:
    """Links to be made in images/s: (name, where it points)."""
    targets = [f"{outside}/{SECRET}", f"../../../outside/{SECRET}", "../../../outside", outside, "/", "/tmp"]
    targets += ["/etc/passwd", "/dev/zero", "/dev/stdin", "/dev/fd/0", "/proc/self/mem", "/proc/self/root/etc/passwd"]
    targets += ["..", "../..", "../../..", "loop0", "l1", "no-such-thing"]
    targets += [f"../s/../../../outside/{SECRET}", f"../../images/s/../../../outside/{SECRET}"]
    return [(f"l{number}", target) for number, target in enumerate(targets)] + [("loop0", "loop1"), ("loop1", "loop0")]
