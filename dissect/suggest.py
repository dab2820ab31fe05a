"""What somebody may have meant."""

import difflib
from collections.abc import Sequence


def near(word: str, known: Sequence[str], count: int = 5) -> list[str]:
    """Known words that resemble a word, best first: spelling, case, a common beginning or part."""
    folded: dict[str, str] = {}
    for name in known:
        folded.setdefault(name.casefold(), name)
    wanted = word.casefold()
    found = [folded[wanted]] if wanted in folded else []
    found += [folded[name] for name in difflib.get_close_matches(wanted, folded, n=count, cutoff=0.6)]
    if len(wanted) >= 3:
        found += [name for key, name in folded.items() if key.startswith(wanted)]
        found += [name for key, name in folded.items() if wanted in key]
    return list(dict.fromkeys(found))[:count]


def suggestion(word: str, known: Sequence[str], otherwise: str = "") -> str:
    """The end of an error message: what was near, or what there is, or `otherwise`."""
    if close := near(word, known):
        return f": did you mean {', '.join(close)}?"
    if otherwise:
        return f": {otherwise}"
    if not known:
        return ": there are none"
    return f": expected one of {', '.join(known[:10])}{' …' if len(known) > 10 else ''}"
