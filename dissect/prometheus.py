"""Figures as Prometheus reads them: its text format, version 0.0.4."""

from collections.abc import Iterable
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True)
class Sample:
    """One figure. Samples of one name share kind (gauge or counter) and help."""

    name: str
    kind: str
    help: str
    value: float
    labels: dict[str, str] = field(default_factory=dict)


def exposition(samples: Iterable[Sample]) -> str:
    """Samples as text; those of one name stand together under one HELP and TYPE."""
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.name, []).append(sample)
    lines = []
    for name, group in groups.items():
        lines += [f"# HELP {name} {_escaped(group[0].help)}", f"# TYPE {name} {group[0].kind}"]
        for sample in group:
            labels = ",".join(f'{key}="{_escaped(value, quote=True)}"' for key, value in sample.labels.items())
            lines.append(f"{name}{{{labels}}} {sample.value:.17g}" if labels else f"{name} {sample.value:.17g}")
    return "\n".join(lines) + "\n"


def _escaped(text: str, quote: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quote else text
