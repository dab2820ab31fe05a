"""Hugging Face style Parquet: image columns are structs of bytes and path. Needs pyarrow (the parquet extra)."""

from __future__ import annotations

from typing import Any

from broden import decode
from broden.errors import BrodenError, DataError, InputFault
from broden.sources.base import FolderSource, Layer, Names, Sample, numbered, option


class ParquetSource(FolderSource):
    """Options: name, path, `files` (default every .parquet in the folder), `image` (column, default image), `masks`
    (table of column to category), `labels` (table of category to a table of number to name), `scalars` (table of
    column to category; text, or numbers that `labels` names).
    """

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__(option(options, "name", str), option(options, "path", str))
        try:
            from pyarrow import parquet
        except ImportError:
            raise BrodenError(
                "reading Parquet needs pyarrow; install the extra: pip install 'dissect[parquet]'"
            ) from None
        self._parquet = parquet
        self._image = option(options, "image", str, "image")
        self._masks = option(options, "masks", dict, {})
        self._scalars = option(options, "scalars", dict, {})
        self._names: dict[str, dict[int, Names]] = {}
        for category, table in option(options, "labels", dict, {}).items():
            names: dict[int, str | Names] = {int(number): str(text) for number, text in table.items()}
            self._names[category] = numbered(names, (255,)) if 0 in names else numbered(names, (0, 255))
        missing = next((c for c in self._masks.values() if c not in self._names), None)
        if missing is not None:
            raise DataError("spec", None, f"masks of category {missing!r} have no names under labels")
        self._groups: list[tuple[str, int, int]] = []  # file, row group, first row
        self._total = 0
        for file in option(options, "files", list, self.files("", (".parquet",))):
            reader = self._open(file)
            for group in range(reader.metadata.num_row_groups):
                self._groups.append((file, group, self._total))
                self._total += reader.metadata.row_group(group).num_rows
        self._held: tuple[int, list[dict[str, Any]]] = (-1, [])

    def _open(self, file: str) -> Any:
        columns = (self._image, *self._masks, *self._scalars)
        try:
            import os

            reader = self._parquet.ParquetFile(os.fdopen(self.root.open(file), "rb"))
        except InputFault as fault:
            raise DataError(self.where(file), None, fault.reason) from None
        except Exception as error:  # pyarrow's own errors for anything that is not Parquet
            raise DataError(self.where(file), None, f"not a Parquet file ({error})") from None
        missing = [name for name in columns if name not in reader.schema_arrow.names]
        if missing:
            raise DataError(self.where(file), None, f"no column {missing[0]!r}; found {reader.schema_arrow.names[:20]}")
        return reader

    def __len__(self) -> int:
        return self._total

    def image_name(self, index: int) -> str:
        """See Source: the row number (paths inside are optional and need not be unique)."""
        return f"{index:08d}"

    def _row(self, index: int) -> dict[str, Any]:
        group = max(at for at, item in enumerate(self._groups) if item[2] <= index)
        if self._held[0] != group:
            file, number, _ = self._groups[group]
            columns = [self._image, *self._masks, *self._scalars]
            self._held = (group, self._open(file).read_row_group(number, columns=columns).to_pylist())
        row: dict[str, Any] = self._held[1][index - self._groups[group][2]]
        return row

    def _bytes(self, row: dict[str, Any], column: str, where: str) -> bytes:
        value = row[column]
        data = value.get("bytes") if isinstance(value, dict) else value
        if not isinstance(data, bytes):
            raise InputFault(where, f"column {column} holds no picture bytes (paths are not followed)")
        return data

    def read(self, index: int) -> Sample:
        """See Source."""
        row = self._row(index)
        where = f"row {index}"
        try:
            data = self._bytes(row, self._image, where)
            sample = Sample(decode.pixels(data), data)
            for column, category in self._masks.items():
                mask = decode.mask(self._bytes(row, column, where))
                if mask.ndim != 2:
                    raise InputFault(where, f"mask in column {column} is in colours; expected one value a pixel")
                sample.layers.append(Layer(category, mask, self._names[category], f"{where}, {column}"))
        except decode.DecodeError as error:
            raise InputFault(where, str(error)) from None
        for column, category in self._scalars.items():
            value = row[column]
            if isinstance(value, int):
                if value not in self._names.get(category, {}):
                    raise InputFault(where, f"label {value} in column {column} has no name")
                names = self._names[category][value]
            else:
                names = (str(value),) if value else ()
            if names:
                sample.scalars.append((category, names))
        return sample
