"""What a worker writes down: one file a worker, rotated, as text or as JSON lines."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler

from dissect.workspace import Workspace

_FIELDS = ("job", "run", "shard", "attempt", "ms")


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        stamp = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        row = {"ts": stamp, "level": record.levelname.lower(), "event": record.getMessage(), "worker": record.name}
        return json.dumps(row | {name: getattr(record, name) for name in _FIELDS if hasattr(record, name)})


@contextmanager
def worker_log(workspace: Workspace, name: str, form: str) -> Iterator[logging.Logger]:
    """Log of one worker, for as long as it works: stderr and logs/NAME.log. form: "text" or "json"."""
    folder = workspace.root / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    log = logging.getLogger(name)
    log.setLevel(logging.INFO)
    log.propagate = False
    text = logging.Formatter("%(asctime)s job %(job)s %(message)s", defaults={"job": "-"})
    handlers = (
        logging.StreamHandler(sys.stderr),
        RotatingFileHandler(folder / f"{name}.log", maxBytes=5 << 20, backupCount=3, encoding="utf-8"),
    )
    for handler in handlers:
        handler.setFormatter(_Json() if form == "json" else text)
        log.addHandler(handler)
    try:
        yield log
    finally:
        for handler in handlers:
            log.removeHandler(handler)
            handler.close()
