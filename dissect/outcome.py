"""What a user gets from one dissection: a finished run, as JSON and as closing lines."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dissect import conventions
from dissect.progress import duration, size
from dissect.store import RunRecord


@dataclass(frozen=True)
class Outcome:
    """A finished run as the store has it, and what this process did for it."""

    run: RunRecord
    layers: Mapping[str, Mapping[str, int]]
    database: str
    report: str | None
    fresh: bool
    notes: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def excluded(self) -> int:
        return self.run.excluded_images

    def json(self) -> dict[str, Any]:
        """The object that `dissect run --json` ends with."""
        return {
            "run": self.run.id,
            "name": self.run.name,
            "database": self.database,
            "report": self.report,
            "convention": self.run.convention,
            "images": self.run.images,
            "excluded_images": self.run.excluded_images,
            "layers": {name: dict(facts) for name, facts in self.layers.items()},
            "timings": dict(self.run.timings),
            "peak_rss_bytes": self.run.peak_rss_bytes,
        }

    def summary(self) -> str:
        """The closing lines for people."""
        t = self.run.timings
        lines = [""]
        for name, facts in self.layers.items():
            lines.append(
                f"{name}: {facts['detectors']} of {facts['units']} units are detectors (IoU > "
                f"{conventions.get(self.run.convention).cut:g}"
                + (f"; {facts['detectors_q05']} of them at q < 0.05" if "detectors_q05" in facts else "")
                + f"), {facts['unique_detectors']} unique detectors, "
                f"{facts['unique_concepts']} unique concepts"
            )
        lines.append(f"images     {self.run.images:,}" + (f", {self.excluded} excluded" if self.excluded else ""))
        if t:
            phases = ("forward", "decode", "threshold", "overlap", "report")
            parts = ", ".join(f"{name} {duration(t[f'{name}_s'])}" for name in phases if f"{name}_s" in t)
            lines.append(f"time       {duration(t.get('wall_s', 0))} ({parts})")
        if self.run.peak_rss_bytes:
            lines.append(f"memory     {size(self.run.peak_rss_bytes)}")
        lines.append(f"run        {self.run.title}" + ("" if self.fresh else "  (was finished already)"))
        lines.append(f"database   {self.database}")
        if self.report:
            lines.append(f"report     {self.report}")
        again = self.run.provenance.get("forwarded_again")
        if again:
            lines.append(
                f"note       {again:,} images were forwarded again: candidates exceeded --memory and --cache-bytes"
            )
        lines += [f"note       {note}" for note in self.notes]
        return "\n".join(lines)
