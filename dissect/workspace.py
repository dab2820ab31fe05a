"""Where a workspace keeps its things: the database, the reports and the counts of each run.

<root>/dissect.sqlite                            the database (or any other, by URL)
<root>/reports/<run>/index.html                  one folder of pages per run
<root>/cache/<run id>/<position>-counts.npy      complete unit x label counts, int64 [U, L], of one layer
"""

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dissect.errors import DissectError, SpaceError, SpecError

if TYPE_CHECKING:
    import numpy as np

DEFAULT = "dissections"
DATABASE = "dissect.sqlite"
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class Workspace:
    """A folder of dissections; `url` is the SQLAlchemy URL of its database."""

    root: Path
    url: str

    @classmethod
    def at(cls, root: str | os.PathLike[str] = DEFAULT, db: str | None = None) -> "Workspace":
        """The workspace in a folder, which need not exist yet. `db` is a database URL or the path of a SQLite file.

        Raises SpecError where the folder is a file or the URL names another kind of database.
        """
        path = Path(root)
        if path.exists() and not path.is_dir():
            raise SpecError(f"workspace {path} is a file: expected a folder (use --db for a database file)")
        if db is None:
            return cls(path, f"sqlite:///{path.absolute() / DATABASE}")
        if "://" not in db:
            return cls(path, f"sqlite:///{Path(db).absolute()}")
        if not db.startswith(("sqlite:", "postgresql")):
            raise SpecError(
                f"database {db.split('://')[0]}://… is not supported: expected sqlite:/// or postgresql+psycopg://"
            )
        return cls(path, db)

    @property
    def database(self) -> Path | None:
        """The SQLite file, or None for a database server."""
        return Path(self.url.removeprefix("sqlite:///")) if self.url.startswith("sqlite:///") else None

    def report_folder(self, run: str) -> Path:
        return self.root / "reports" / run

    def cache_folder(self, run_id: str) -> Path:
        return self.root / "cache" / run_id

    def counts_name(self, run_id: str, position: int) -> str:
        """Name of a layer's counts file relative to the root, as stored in the database."""
        return f"cache/{run_id}/{position}-counts.npy"

    def exemplar_maps(self, run_id: str, position: int) -> Path:
        """File of a layer's exemplar maps, float32 [U, E, h, w]."""
        return self.cache_folder(run_id) / f"{position}-exemplar-maps.npy"

    def histogram_files(self, run_id: str, position: int) -> tuple[Path, Path]:
        """Files of a layer's activation histograms: edges float64 [b + 1] and counts int64 [U, b]."""
        folder = self.cache_folder(run_id)
        return folder / f"{position}-histogram-edges.npy", folder / f"{position}-histogram.npy"

    def save_counts(self, run_id: str, position: int, counts: "np.ndarray") -> str:
        """Put the complete counts [U, L] int64 of a layer in place; returns their name. Raises as `save_array`."""
        name = self.counts_name(run_id, position)
        self.save_array(self.root / name, counts)
        return name

    def save_array(self, target: Path, array: "np.ndarray") -> None:
        """Write a .npy file aside, sync it, rename it into place.

        Raises SpaceError on a full disk, DissectError where the folder cannot be written.
        """
        import numpy as np

        array = np.ascontiguousarray(array)
        aside = target.with_suffix(f".{os.getpid()}.tmp")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with aside.open("wb") as file:
                np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
                file.write(array.data)  # unlike ndarray.tofile, this keeps the errno of a short write
                file.flush()
                os.fsync(file.fileno())
            aside.replace(target)
        except OSError as error:
            aside.unlink(missing_ok=True)
            kind = SpaceError if error.errno in _NO_SPACE else DissectError
            raise kind(f"cannot write {target}: {error.strerror}") from error

    def open_counts(self, name: str | None) -> "np.ndarray":
        """The memory-mapped counts [U, L] int64 of a layer, by the name that the database holds.

        Raises SpecError where there are none (an imported run, a cleaned cache) or the name leaves the workspace.
        """
        import numpy as np

        if name is None:
            raise SpecError("this layer has no counts file (imported runs have none): only its stored pairs can be had")
        path = (self.root / name).resolve()
        if not path.is_relative_to(self.root.resolve()):
            raise SpecError(f"counts file {name!r} lies outside the workspace {self.root}")
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            raise SpecError(f"counts file {path} is gone: run the dissection again to have every pair") from None
        except (OSError, ValueError) as error:
            raise DissectError(f"counts file {path} cannot be read: {error}") from error
