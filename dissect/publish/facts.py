"""What a run says of itself: provenance, and what a reader must know. No clock and no folder reaches a page."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import reports
from dissect.publish.layer import LayerTables
from dissect.store import RunRecord
from reports import pages

_CLOCKS = re.compile(
    r"(^|_)(disk_bytes|spilled_bytes|forwarded_again|threads|time|times|timings|date|created|finished|started|seconds|s|rss|host|hostname|pid|cwd|user)$"
)
_FOLDERS = re.compile(r"""(?<![^\s=:,;'"(\[])(?:~|[A-Za-z]:|\\)?[\\/](?:[^\s\\/'",:]+[\\/])*(?=[^\s\\/])""")


_SAME = {"concept data fingerprint": "data fingerprint"}
"""What the specification of a run calls by another name."""


def provenance(record: RunRecord, layers: Sequence[LayerTables]) -> tuple[pages.Fact, ...]:
    """What is needed to repeat the run. Folders are cut from names, clocks are left out."""
    facts = [
        ("run", record.id),
        ("model", record.model or record.source),
        ("source", record.source),
        ("weights sha256", record.weights_sha256 or "none: random weights or unknown"),
        ("concept data", record.data_name),
        ("concept data fingerprint", record.data_fingerprint),
        ("split", record.split or "all rows"),
        ("images", str(record.images)),
        ("images set aside", str(record.excluded_images)),
        ("label maps", f"{record.label_h} x {record.label_w}"),
        ("convention", record.convention),
        ("quantile", repr(record.quantile)),
        ("code version", record.code_version or "unknown"),
    ]
    for layer in layers:
        s = layer.stored
        facts.append(
            (f"layer {s.name}", f"map {s.map_h} x {s.map_w}, n = {s.activations}, k = {s.top_k}, cut {s.cut:g}")
        )
    said = {(_SAME.get(key, key), value) for key, value in facts}
    for title, values in (("spec", record.spec), ("", record.provenance)):
        for key, value in _flat(values):
            key = key.replace("_", " ")
            if value and (key, value) not in said:
                facts.append((f"{title} {key}".strip(), value))
    return tuple(pages.Fact(unfoldered(key), unfoldered(value)) for key, value in facts)


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    out: list[tuple[str, str]] = []
    for key in sorted(values):
        value = values[key]
        if _CLOCKS.search(key) or key in ("data_root", "command", "argv"):
            continue
        if isinstance(value, Mapping):
            out.extend(_flat(value, f"{prefix}{key}."))
        elif isinstance(value, list | tuple):
            out.append((prefix + key, ", ".join(str(v) for v in value)))
        elif value is not None:
            out.append((prefix + key, str(value)))
    return out


def unfoldered(text: str) -> str:
    """The text with the folders of absolute paths cut off: the names stay."""
    return _FOLDERS.sub("", text)


def honesty(record: RunRecord, layers: Sequence[LayerTables], remark: str) -> list[str]:
    """What a reader must know before believing the numbers."""
    out = []
    if record.convention == "exact":
        out.append("Thresholds are exact order statistics of all activations, and all counts are whole numbers.")
    elif record.state == "imported":
        out.append(f"These numbers were imported; this program did not compute them ({record.convention} convention).")
    else:
        out.append(f"Counts follow the published {record.convention} convention; other conventions give other IoU.")
    if record.excluded_images:
        out.append(f"{reports.plural(record.excluded_images, 'image')} could not be used and took part in nothing.")
    for layer in layers:
        u, name = layer.units, layer.stored.name
        odd = [
            f"{reports.plural(int(n), 'unit')} {word}"
            for n, word in (
                (u.dead.sum(), "dead (constant)"),
                (u.saturated.sum(), "saturated (empty mask)"),
                ((u.nonfinite > 0).sum(), "with values that are not finite"),
            )
            if n
        ]
        if odd:
            out.append(f"{name}: {', '.join(odd)}; shown, and never ranked as if sound.")
        if layer.stored.top_k == 0 and layer.stored.activations:
            out.append(f"{name}: too few images for the quantile; each threshold is the maximum.")
        close = int((np.abs(u.iou - layer.stored.cut) < 0.001).sum())
        if close:
            out.append(
                f"{name}: {reports.plural(close, 'unit')} within 0.001 of the cut; the count of detectors is that soft."
            )
    out.append("A label is the best match among the concepts of this data set; it need not be all that a unit does.")
    if any(layer.scores.iou_low is not None and np.isfinite(layer.scores.iou_low).any() for layer in layers):
        out.append(
            "An interval of 95 % says how the IoU would vary over image sets like this one; it does not know that the "
            "label was chosen as the best of many. Stability does: it is the share of redrawn image sets in which the "
            "label is still the best."
        )
        soft = sum(int((layer.units.stability < 0.5).sum()) for layer in layers if layer.units.stability is not None)
        if soft:
            out.append(f"{reports.plural(soft, 'unit')} would take another label in most redrawn image sets.")
    if any(layer.units.q_value is not None and np.isfinite(layer.units.q_value).any() for layer in layers):
        out.append("Each q-value is the share of false finds to expect among labels that score at least as well.")
    else:
        out.append("No baseline was measured: an IoU above the cut can come about by chance, most easily for textures.")
    if remark:
        out.append(remark)
    return out
