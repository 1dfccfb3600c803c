"""What the sources of the user's own files share: files that are read once, days, and the refusal of cells and of repeated rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import pandas as pd

from config.errors import InputError
from flows.sources.tabular import SourceFile, find_files, load_mapping, map_columns, numbers, read_table, stem

__all__ = ["NEW_YORK", "SOURCE", "Files", "between", "end_of_day", "naive_days", "numeric", "refuse_cells", "refuse_repeats"]

SOURCE = "files"
NEW_YORK = "America/New_York"


class Files:
    """What both kinds have in common: files, read once."""

    name = SOURCE
    names_per_request = None
    incremental = False

    def __init__(
        self,
        path: str | Path,
        mapping: Mapping[str, str] | str | Path | None,
        columns: dict[str, tuple[str, ...]],
        only: str | None,
        unnamed: str | None = None,
    ) -> None:
        self._paths = find_files(path)
        self._unnamed = unnamed if len(self._paths) == 1 else None
        self._columns = columns
        self._mapping = load_mapping(mapping, tuple(columns))
        self._only = only
        self._read: list[tuple[SourceFile, dict[str, str], pd.Series]] | None = None
        if only is not None and len(self._paths) > 1:
            raise InputError(
                f"{path} holds {len(self._paths)} files, which cannot all be {only!r}",
                remedy="name files after their symbols, or give them a column that says so",
            )

    def _tables(self, name_column: str, required: Sequence[str]) -> list[tuple[SourceFile, dict[str, str], pd.Series]]:
        """Each file, its columns, and the name (symbol or series) of each row."""
        if self._read is None:
            read: list[tuple[SourceFile, dict[str, str], pd.Series]] = []  # all of them, or none: a failure is met again
            for path in self._paths:
                file = read_table(path)
                columns = map_columns(file, self._mapping, self._columns, required)
                if name_column in columns and self._only is None:
                    names = file.frame[columns[name_column]].astype(str).str.strip()
                else:
                    names = pd.Series(self._only or self._unnamed or stem(path), index=file.frame.index, dtype=object)
                read.append((file, columns, names))
            self._read = read
        return self._read

    def _listed(self, name_column: str, required: Sequence[str]) -> tuple[str, ...]:
        return tuple(sorted({name for _, _, names in self._tables(name_column, required) for name in names.unique() if name}))


def naive_days(moments: pd.Series) -> pd.Series:
    days: pd.Series = (moments if moments.dt.tz is None else moments.dt.tz_localize(None)).dt.normalize()
    return days


def end_of_day(days: pd.Series) -> pd.Series:
    """The last minute of each day in New York: a publication whose hour is not known is never taken for earlier."""
    ends: pd.Series = (days + pd.Timedelta(hours=23, minutes=59)).dt.tz_localize(NEW_YORK).dt.tz_convert("UTC")
    return ends


def between(days: pd.Series, start: date | None, end: date | None) -> pd.Series:
    keep = pd.Series(True, index=days.index)
    if start is not None:
        keep &= days >= pd.Timestamp(start)
    if end is not None:
        keep &= days <= pd.Timestamp(end)
    return keep


def numeric(file: SourceFile, fields: Mapping[str, str]) -> tuple[pd.DataFrame, dict[str, pd.Series]]:
    read = {name: numbers(file, column) for name, column in fields.items()}
    frame = pd.DataFrame({name: values for name, (values, _) in read.items()}, index=file.frame.index)
    return frame, {fields[name]: bad for name, (_, bad) in read.items()}


def refuse_cells(file: SourceFile, bad: Mapping[str, pd.Series], names: pd.Series, keep: pd.Series) -> pd.Series:
    """Set aside the rows with a cell that cannot be read, the first such cell named; return which rows are left."""
    left = keep.copy()
    for column, cells in bad.items():
        wrong = left & cells
        labels = list(wrong.index[wrong])
        reasons = [f"column {column}: {file.frame.loc[label, column]!r} cannot be read" for label in labels]
        file.refuse(labels, "wrong_type", reasons, [str(names[label]) for label in labels])
        left &= ~cells
    return left


def refuse_repeats(
    file: SourceFile, frame: pd.DataFrame, key: list[str], values: list[str], *, name: str = "symbol"
) -> pd.DataFrame:
    """Set aside rows that repeat a key: equal ones but the first; different ones all, since nobody can say which is right."""
    alike = frame.duplicated(key, keep=False)
    if not alike.any():
        return frame
    again = frame.duplicated([*key, *values], keep="first")
    conflict = alike & ~frame.duplicated([*key, *values], keep=False)
    groups = frame[alike].groupby(key, sort=False).groups
    place = {label: [other for other in labels if other != label] for labels in groups.values() for label in labels}
    in_conflict = {label for labels in groups.values() if any(conflict[one] for one in labels) for label in labels}
    for label in frame.index[alike]:
        if label in in_conflict:
            rule, reason = "key_in_conflict", f"the same {' and '.join(key)} as {file.unit} {place[label][0]}, with other values"
        elif again[label]:
            rule, reason = "row_repeated", f"repeats {file.unit} {place[label][0]}"
        else:
            continue
        file.refuse([label], rule, [reason], [str(frame.loc[label, name])])
    return frame[~(again | frame.index.isin(list(in_conflict)))]
