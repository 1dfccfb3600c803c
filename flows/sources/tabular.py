"""Read CSV, JSON and Parquet files into text or typed columns that remember the line they came from, and read them strictly.

1. `read_table` reads a file's bytes into a frame whose index names the line (CSV, JSON lines) or the row (the others).
2. `map_columns` finds the columns that are meant, by the user's mapping or by the usual names.
3. `numbers` and `times` convert; what cannot be converted is reported cell by cell, never guessed.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import yaml

from config.errors import DataError, InputError, did_you_mean
from flows.sources.base import RefusedRow
from flows.sources.shape import plain_row

__all__ = ["SUFFIXES", "SourceFile", "find_files", "load_mapping", "map_columns", "numbers", "read_table", "stem", "times"]

SUFFIXES = (".csv", ".csv.gz", ".txt", ".txt.gz", ".json", ".jsonl", ".ndjson", ".json.gz", ".jsonl.gz", ".parquet")


@dataclass(kw_only=True)
class SourceFile:
    """A file, its rows, and the rows refused so far.

    Parameters
    ----------
    frame : DataFrame
        Index: the line in the file, from 1 (`unit` line), or the row, from 1 (`unit` row).
    """

    path: Path
    payload: bytes = field(repr=False)
    frame: pd.DataFrame = field(repr=False)
    unit: str
    refused: list[RefusedRow] = field(default_factory=list)

    def place(self, label: Any) -> str:
        """Where a row is: ``prices.csv line 12``."""
        return f"{self.path.name} {self.unit} {label}"

    def refuse(self, labels: Sequence[Any], rule: str, reasons: Sequence[str], symbols: Sequence[str | None]) -> None:
        """Set rows aside, as they came."""
        for label, reason, symbol in zip(labels, reasons, symbols, strict=True):
            raw = {"file": self.path.name, self.unit: int(label), **plain_row(self.frame.loc[label])}
            self.refused.append(RefusedRow(symbol=symbol, rule=rule, reason=f"{self.place(label)}: {reason}", raw=raw))


def find_files(path: str | Path) -> tuple[Path, ...]:
    """The file, or the readable files of a folder, sorted.

    Raises
    ------
    InputError
        There is no such file or folder, or the folder holds nothing readable.
    """
    given = Path(path).expanduser()
    if given.is_file():
        if not given.name.lower().endswith(SUFFIXES):
            raise InputError(f"{given} is none of {', '.join(SUFFIXES)}", remedy="convert it, or rename it to what it is")
        return (given,)
    if not given.is_dir():
        raise InputError(f"there is no file or folder {given}", remedy="correct the path")
    found = tuple(sorted(file for file in given.iterdir() if file.is_file() and file.name.lower().endswith(SUFFIXES)))
    if not found:
        raise InputError(f"the folder {given} holds no file of the kinds {', '.join(SUFFIXES)}")
    return found


def stem(path: Path) -> str:
    """The file's name without its readable suffixes: ``BRK.B.csv.gz`` is BRK.B."""
    name = path.name
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def read_table(path: Path) -> SourceFile:
    """Read a file; CSV and JSON values stay as they are written.

    Raises
    ------
    InputError
        It cannot be opened.
    DataError
        It is not what its suffix says: broken gzip, ragged CSV, invalid JSON, an unreadable Parquet file; or it is empty.
    """
    try:
        payload = path.read_bytes()
    except OSError as problem:
        raise InputError(f"cannot read {path}: {problem.strerror}") from problem
    name = path.name.lower()
    try:
        data = gzip.decompress(payload) if name.endswith(".gz") else payload
        if name.endswith(".parquet"):
            import pyarrow.parquet as pq

            frame, unit = pq.read_table(pa.BufferReader(data)).to_pandas(), "row"
        elif ".json" in name or name.endswith(".ndjson"):
            frame, unit = _read_json(path, data)
        else:
            frame, unit = _read_csv(data), "line"
    except (OSError, EOFError, UnicodeDecodeError, pd.errors.ParserError, pd.errors.EmptyDataError, pa.ArrowException) as problem:
        raise DataError(f"{path} cannot be read: {' '.join(str(problem).split())}", remedy="nothing of it was stored") from problem
    if unit == "row":
        frame.index = pd.RangeIndex(1, len(frame) + 1)
    if frame.empty:
        raise DataError(f"{path} holds no rows", remedy="an empty file is not taken for an empty answer; remove it or fill it")
    frame.columns = pd.Index([str(column).strip() for column in frame.columns])
    if frame.columns.has_duplicates:
        raise DataError(f"{path} has the column {frame.columns[frame.columns.duplicated()][0]!r} twice")
    return SourceFile(path=path, payload=payload, frame=frame, unit=unit)


def _read_csv(data: bytes) -> pd.DataFrame:
    text = data.decode("utf-8-sig")
    header = text[: text.find("\n")] if "\n" in text else text
    delimiter = max(",;\t|", key=header.count)
    # Blank lines are kept while reading, so that the index is the line; a line that holds a line break in quotes moves it.
    frame = pd.read_csv(io.StringIO(text), sep=delimiter, dtype=str, keep_default_na=False, skip_blank_lines=False, index_col=False)
    frame.index = pd.RangeIndex(2, len(frame) + 2)
    frame = frame.astype(object).where(frame.notna(), "")
    return frame[(frame != "").any(axis=1)]


def _read_json(path: Path, data: bytes) -> tuple[pd.DataFrame, str]:
    text = data.decode("utf-8-sig").strip()
    try:
        if text.startswith("["):
            return _records(path, json.loads(text), "row"), "row"
        rows = []
        for line, content in enumerate(text.splitlines(), start=1):
            if content.strip():
                rows.append((line, json.loads(content)))
    except json.JSONDecodeError as problem:
        where = f"line {problem.lineno}" if text.startswith("[") else f"line {line}"
        raise DataError(
            f"{path} {where}: not valid JSON ({problem.msg})", remedy="give a list of records, or one record a line"
        ) from problem
    frame = _records(path, [row for _, row in rows], "line")
    frame.index = pd.Index([line for line, _ in rows])
    return frame, "line"


def _records(path: Path, rows: Any, unit: str) -> pd.DataFrame:
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(
                f"{path} {unit} {number}: {row!r} is not a record", remedy="give a list of records, or one record a line"
            )
    return pd.DataFrame.from_records(rows, coerce_float=False).astype(object)


def load_mapping(mapping: Mapping[str, str] | str | Path | None, known: Sequence[str]) -> dict[str, str]:
    """The user's column mapping, ours to theirs: ``{close: "Closing price"}``, as a mapping or a YAML file of one.

    Raises
    ------
    InputError
        It cannot be read, or names a column that is not one of `known`.
    """
    if mapping is None:
        return {}
    if isinstance(mapping, str | Path):
        try:
            mapping = yaml.safe_load(Path(mapping).expanduser().read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as problem:
            raise InputError(f"the column mapping cannot be read: {' '.join(str(problem).split())}") from problem
    if not isinstance(mapping, Mapping):
        raise InputError(
            f"the column mapping is a {type(mapping).__name__}", remedy="write it as `close: Closing price`, one a line"
        )
    for name in mapping:
        if name not in known:
            raise InputError(
                f"the column mapping names {name!r}, which is no column of ours", remedy=did_you_mean(str(name), tuple(known))
            )
    return {str(ours): str(theirs) for ours, theirs in mapping.items()}


def map_columns(
    file: SourceFile, mapping: Mapping[str, str], usual: Mapping[str, Sequence[str]], required: Sequence[str]
) -> dict[str, str]:
    """Which of the file's columns is which of ours.

    Raises
    ------
    DataError
        A mapped column is not in the file, or a required one is not found.
    """
    columns = list(map(str, file.frame.columns))
    by_plain_name = {column.lower().replace(" ", "_").rstrip("."): column for column in reversed(columns)}
    found: dict[str, str] = {}
    for ours, names in usual.items():
        if ours in mapping:
            if mapping[ours] not in columns:
                raise DataError(
                    f"{file.path} has no column {mapping[ours]!r}, which the mapping gives for {ours}",
                    remedy=f"its columns are {', '.join(columns)}",
                )
            found[ours] = mapping[ours]
            continue
        theirs = next((by_plain_name[name] for name in names if name in by_plain_name), None)
        if theirs is not None:
            found[ours] = theirs
    lacking = [ours for ours in required if ours not in found]
    if lacking:
        raise DataError(
            f"{file.path} has no column for {', '.join(lacking)}",
            remedy=f"its columns are {', '.join(columns)}; pass a mapping {{{lacking[0]}: NAME}} that says which one it is",
        )
    return found


def numbers(file: SourceFile, column: str, *, missing: Sequence[str] = ("",)) -> tuple[pd.Series, pd.Series]:
    """A column as float64 (NaN where it is empty), and which of its cells are neither empty nor a number."""
    raw = file.frame[column]
    if pd.api.types.is_numeric_dtype(raw) and not pd.api.types.is_bool_dtype(raw):
        return raw.astype("float64"), pd.Series(False, index=raw.index)
    empty = raw.isna() | raw.astype(str).str.strip().isin(missing)
    values = pd.to_numeric(raw.where(~empty), errors="coerce").astype("float64")
    return values, values.isna() & ~empty


def times(file: SourceFile, column: str, date_format: str | None) -> tuple[pd.Series, pd.Series, bool]:
    """A column as times.

    Returns
    -------
    values : Series
        Naive, as written, where no cell carries an offset; UTC-aware otherwise. NaT where it cannot be read.
    bad : Series of bool
        Cells that cannot be read, empty ones included.
    daily : bool
        Whether every cell is a date: no time of day, or midnight as written.

    Raises
    ------
    DataError
        No cell of the column can be read, or some carry an offset and some do not.
    """
    raw = file.frame[column]
    if isinstance(raw.dtype, pd.DatetimeTZDtype):
        return raw.dt.tz_convert("UTC"), raw.isna(), bool((raw.dropna() == raw.dropna().dt.normalize()).all())
    if pd.api.types.is_datetime64_any_dtype(raw):
        return raw, raw.isna(), bool((raw.dropna() == raw.dropna().dt.normalize()).all())
    text = raw.map(lambda value: value.isoformat() if hasattr(value, "isoformat") else str(value).strip())
    if date_format in ("epoch_s", "epoch_ms"):
        counted = pd.to_numeric(text, errors="coerce")
        values = pd.to_datetime(counted, unit="s" if date_format == "epoch_s" else "ms", utc=True, errors="coerce")
        return values, values.isna(), False
    aware = text.str.contains(r"(?:\d(?:Z|[+-]\d{2}:?\d{2}))$", regex=True) & text.str.contains(":")
    if aware.any() and not aware.all():
        label = text.index[~aware][0]
        raise DataError(f"{file.place(label)}, column {column}: {text[label]!r} has no time zone, while others have one")
    values = pd.to_datetime(text, format=date_format or "ISO8601", errors="coerce", utc=bool(aware.any()))
    bad = values.isna()
    if bad.all():
        raise DataError(
            f"{file.place(text.index[0])}, column {column}: {text.iloc[0]!r} is not a date as 2018-12-31",
            remedy="pass date_format, such as date_format='%m/%d/%Y', epoch_s or epoch_ms",
        )
    written = text[~bad]
    midnight = ~written.str.contains(":") | written.str.contains(r"[ T]00:00(?::00(?:\.0+)?)?(?:Z|[+-]\d{2}:?\d{2})?$", regex=True)
    return values, bad, bool(midnight.all())
