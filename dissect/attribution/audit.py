"""The books of a pass: which calls a rule replaced, and what was left to its own derivative."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Call:
    """One replaced call: its kind (relu, max-pool, linear), the layer it ran in, and how it was spelt."""

    kind: str
    layer: str
    spelling: str
    shape: tuple[int, ...]
    in_place: bool


@dataclass
class Audit:
    """The books of one pass: every replaced call, and what was left to its own derivative."""

    calls: list[Call] = field(default_factory=list)
    extended: Counter[str] = field(default_factory=Counter)  # activations under the named extension
    natural: Counter[str] = field(default_factory=Counter)  # gates without a rule, left as they are
    comparisons: list[str] = field(default_factory=list)  # layers that compare activations: maybe a hand-written ReLU
    found: Counter[str] = field(default_factory=Counter)  # what the walk over the graph met again

    def count(self, kind: str) -> int:
        """How many calls of a kind were replaced."""
        return sum(call.kind == kind for call in self.calls)

    def json(self) -> dict[str, Any]:
        """Plain values for files and databases."""
        return {
            "replaced": dict(Counter(call.kind for call in self.calls)),
            "calls": [
                {
                    "kind": c.kind,
                    "layer": c.layer,
                    "spelling": c.spelling,
                    "shape": list(c.shape),
                    "in_place": c.in_place,
                }
                for c in self.calls
            ],
            "extended": dict(self.extended),
            "natural": dict(self.natural),
            "comparisons": self.comparisons,
        }

    def lines(self) -> list[str]:
        """The same in words."""
        text = []
        for kind, number in Counter(call.kind for call in self.calls).items():
            spelt = Counter(call.spelling for call in self.calls if call.kind == kind)
            text.append(f"{number} {kind} calls replaced ({', '.join(f'{n} x {s}' for s, n in spelt.items())})")
        for name, number in self.extended.items():
            text.append(f"{number} x {name}: extension 'derivative' (no published definition)")
        for name, number in self.natural.items():
            text.append(f"{number} x {name}: plain derivative")
        if self.comparisons:
            text.append(
                f"activations are compared in {', '.join(sorted(set(self.comparisons)))}: "
                "a ReLU written by hand would not have been replaced"
            )
        return text
