"""Import who belonged to a universe from a plain CSV, and show it on a day.

1. `_read` reads the lines; `_columns` finds the columns, by the user's mapping or the usual names.
2. `_interval` turns a line into a membership; `_refuse_overlaps` finds those that contradict each other, or what is stored.
3. `import_universe` keeps the file's bytes, stores the memberships (lake.universe), records the ingest and publishes.

A file with any error is refused whole, with the lines: a universe with holes is a universe chosen with hindsight.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from config.clock import Clock
from config.errors import DataError, InputError
from config.hashing import canonical_json, digest, sha256_bytes, short
from config.settings import Settings
from lake.universe import Interval, effective_open

__all__ = ["COLUMNS", "import_universe", "show_universe"]

# Ours, and what it is usually called (lower case, blanks as underscores).
COLUMNS: dict[str, tuple[str, ...]] = {
    "universe": ("universe", "index"),
    "symbol": ("symbol", "ticker"),
    "from": ("from", "from_date", "start", "start_date", "date_added", "added"),
    "to": ("to", "to_date", "end", "end_date", "date_removed", "removed"),
    "announced": ("announced", "announced_at", "announcement_date"),
    "removal_announced": ("removal_announced", "removal_announced_at", "removal_announcement_date"),
}
SOURCE = "files"
_SHIPPED = Path(__file__).resolve().parents[1] / "config" / "universes"
_MOST_PROBLEMS = 10


def import_universe(
    settings: Settings,
    clock: Clock,
    path: str | Path,
    *,
    name: str | None = None,
    mapping: Mapping[str, str] | str | Path | None = None,
    date_format: str | None = None,
) -> dict[str, Any]:
    """Import memberships from a CSV.

    Parameters
    ----------
    path : str or Path
        A CSV, or the name of one that ships with the package (``bundled_stocks``). Columns: universe, symbol, from, to
        (exclusive; empty while it lasts), and, where known, when the joining and the leaving were announced.
    name : str, optional
        The universe, where no column says it.
    mapping : mapping, or path of a YAML file, optional
        Ours to theirs.
    date_format : str, optional
        Of dates not written as 2018-12-31.

    Returns
    -------
    dict
        ``universe`` names, counts ``begun``, ``ended``, ``unchanged``, ``corrected``, stored intervals that the file no longer
        has (``absent``), and the ``snapshot_id``.

    Raises
    ------
    InputError
        The file cannot be opened.
    DataError
        A line cannot be read, is reversed, or overlaps another; nothing was stored.
    """
    from flows.bookkeeping import AnswerRun, record_runs
    from flows.ingest_report import RowCounts
    from lake import open_lake
    from lake.universe import store

    file = _find(path)
    payload, lines = _read(file)
    intervals = _parse(file, lines, name, mapping, date_format, settings.data.calendar)
    lake, now = open_lake(settings), clock.now()
    known = {(one.universe, one.symbol, one.from_date) for one, _ in intervals}
    universes = sorted({one.universe for one, _ in intervals})
    held = lake.read_latest("universe_membership", where={"universe": universes}).to_pylist()
    absent = [row for row in held if (row["universe"], row["symbol"], row["from_date"]) not in known]
    _refuse_overlaps(file, [*intervals, *((_of_row(row), None) for row in absent)])
    request = canonical_json({"file": file.name, "name": name, "mapping": str(mapping), "date_format": date_format})
    sha256 = lake.raw.put(payload)
    ingest_id = short(digest({"source": SOURCE, "dataset": "universe_membership", "request": request, "response_sha256": sha256}))
    run = AnswerRun(
        ingest_id=ingest_id,
        source=SOURCE,
        dataset="universe_membership",
        request=request,
        origin=str(file),
        response_sha256=sha256_bytes(payload),
        response_bytes=len(payload),
        notes=(),
    )
    record_runs(lake, [run], now)
    stored = store(lake, [one for one, _ in intervals], source=SOURCE, ingest_id=ingest_id, recorded_at=now)
    again = len(intervals) - stored.begun - stored.unchanged
    counts = RowCounts(received=len(intervals), new=stored.begun, revised=again, unchanged=stored.unchanged)
    record_runs(lake, [run.done(counts)], now)
    return {
        "universe": universes,
        "intervals": len(intervals),
        "begun": stored.begun,
        "ended": stored.ended,
        "unchanged": stored.unchanged,
        "corrected": stored.corrected,
        "absent": [{"universe": r["universe"], "symbol": r["symbol"], "from": r["from_date"].isoformat()} for r in absent],
        "available_kind": sorted({one.available_kind for one, _ in intervals}),
        "snapshot_id": lake.publish().id,
    }


def show_universe(settings: Settings, name: str, *, on: date | None = None, as_of: datetime | None = None) -> dict[str, Any]:
    """Who belonged to a universe on a day; without a day every membership there was.

    Raises
    ------
    UnknownNameError, InputError
        As `lake.universe.members`.
    """
    from lake import open_lake
    from lake.universe import members, stored_intervals

    snapshot = open_lake(settings).snapshot()
    document: dict[str, Any] = {"universe": name, "snapshot_id": snapshot.id, "on": on, "as_of": as_of}
    if on is not None:
        return {**document, "members": list(members(snapshot, name, on=on, as_of=as_of))}
    kept = ("symbol", "from_date", "to_date", "joined_known_at", "left_known_at", "available_kind")
    return {**document, "memberships": [{key: row[key] for key in kept} for row in stored_intervals(snapshot, name, as_of=as_of)]}


def _find(path: str | Path) -> Path:
    given = Path(path).expanduser()
    shipped = _SHIPPED / f"{path}.csv"
    if not given.is_file() and shipped.is_file():
        return shipped
    if not given.is_file():
        names = ", ".join(sorted(one.stem for one in _SHIPPED.glob("*.csv")))
        raise InputError(f"there is no file {given}", remedy=f"correct the path, or name one that ships with Quantrail: {names}")
    return given


def _read(file: Path) -> tuple[bytes, list[tuple[int, list[str]]]]:
    """The bytes, and each line that is neither empty nor a comment, with its number."""
    try:
        payload = file.read_bytes()
        text = payload.decode("utf-8-sig")
    except OSError as problem:
        raise InputError(f"cannot read {file}: {problem.strerror}") from problem
    except UnicodeDecodeError as problem:
        raise DataError(
            f"{file} is not UTF-8 text: {problem.reason} at byte {problem.start}", remedy="save it as UTF-8 CSV"
        ) from None
    plain = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    delimiter = max(",;\t|", key=plain[0].count) if plain else ","
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    lines = [(number, cells) for number, cells in lines if any(cells) and not cells[0].startswith("#")]
    if len(lines) < 2:
        raise DataError(f"{file} holds no memberships", remedy="a header and one line a membership: universe,symbol,from,to")
    return payload, lines


def _parse(
    file: Path,
    lines: Sequence[tuple[int, list[str]]],
    name: str | None,
    mapping: Mapping[str, str] | str | Path | None,
    date_format: str | None,
    calendar: str,
) -> list[tuple[Interval, int | None]]:
    columns = _columns(file, lines[0][1], mapping)
    if "universe" not in columns and name is None:
        raise InputError(f"{file} has no column that names the universe", remedy="pass --name SP500, or map the column: universe")
    intervals: list[tuple[Interval, int | None]] = []
    problems: list[str] = []
    for number, cells in lines[1:]:
        try:
            if len(cells) != len(lines[0][1]):
                raise ValueError(f"{len(cells)} cells where the header has {len(lines[0][1])}")
            row = {ours: cells[at] for ours, at in columns.items()}
            if name is not None and row.get("universe", name) == name:
                row["universe"] = name
            elif name is not None:
                continue  # another universe of the same file
            intervals.append((_interval(row, date_format, calendar), number))
        except ValueError as problem:
            problems.append(f"line {number}: {problem}")
    if problems:
        more = f"; and {len(problems) - _MOST_PROBLEMS} lines more" if len(problems) > _MOST_PROBLEMS else ""
        raise DataError(
            f"{file.name}: {'; '.join(problems[:_MOST_PROBLEMS])}{more}", remedy="correct these lines; nothing was stored"
        )
    if not intervals:
        raise DataError(f"{file} holds no memberships of {name}", remedy="its column of universes holds other names")
    return intervals


def _columns(file: Path, header: list[str], mapping: Mapping[str, str] | str | Path | None) -> dict[str, int]:
    """Where each of our columns is."""
    from flows.sources.tabular import load_mapping

    given = load_mapping(mapping, tuple(COLUMNS))
    plain = [cell.lower().replace(" ", "_") for cell in header]
    found: dict[str, int] = {}
    for ours, usual in COLUMNS.items():
        if ours in given and given[ours] not in header:
            raise DataError(
                f"{file} has no column {given[ours]!r}, which the mapping gives for {ours}", remedy=f"it has {', '.join(header)}"
            )
        at = header.index(given[ours]) if ours in given else next((plain.index(one) for one in usual if one in plain), None)
        if at is not None:
            found[ours] = at
    lacking = [ours for ours in ("symbol", "from", "to") if ours not in found]
    if lacking:
        raise DataError(
            f"{file} has no column for {', '.join(lacking)}",
            remedy=f"it has {', '.join(header)}; pass a mapping {{{lacking[0]}: NAME}} that says which one it is",
        )
    return found


def _interval(row: Mapping[str, str], date_format: str | None, calendar: str) -> Interval:
    """One membership.

    Raises
    ------
    ValueError
        What is wrong with the line.
    """
    for needed in ("universe", "symbol", "from"):
        if not row[needed]:
            raise ValueError(f"{needed} is empty")
    begins = _day(row["from"], "from", date_format)
    ends = _day(row["to"], "to", date_format) if row["to"] else None
    if ends is not None and ends <= begins:
        raise ValueError(f"{row['symbol']} leaves on {ends}, which is not after it joined on {begins}")
    joined, left = row.get("announced", ""), row.get("removal_announced", "")
    if left and ends is None:
        raise ValueError(f"{row['symbol']} has a removal announced on {left}, and no day of it (to)")
    announced = bool(joined) and (ends is None or bool(left))
    return Interval(
        universe=row["universe"],
        symbol=row["symbol"],
        from_date=begins,
        to_date=ends,
        joined_known_at=_end_of(_day(joined, "announced", date_format)) if joined else effective_open(begins, calendar),
        left_known_at=None
        if ends is None
        else _end_of(_day(left, "removal_announced", date_format))
        if left
        else effective_open(ends, calendar),
        available_kind="announced" if announced else "assumed",
    )


def _day(text: str, column: str, date_format: str | None) -> date:
    try:
        return date.fromisoformat(text) if date_format is None else datetime.strptime(text, date_format).date()
    except ValueError:
        wanted = "2018-12-31" if date_format is None else date_format
        raise ValueError(f"{column} is {text!r}, which is no date as {wanted}") from None


def _end_of(day: date) -> datetime:
    """The last minute of a day in New York: an announcement whose hour is not known is never taken for earlier."""
    from zoneinfo import ZoneInfo

    end = datetime(day.year, day.month, day.day, 23, 59, tzinfo=ZoneInfo("America/New_York"))
    return end.astimezone(UTC)  # pyarrow has been seen to take another zone's clock for UTC


def _of_row(row: Mapping[str, Any]) -> Interval:
    names = ("universe", "symbol", "from_date", "to_date", "joined_known_at", "left_known_at", "available_kind")
    return Interval(**{name: row[name] for name in names})


def _refuse_overlaps(file: Path, intervals: Sequence[tuple[Interval, int | None]]) -> None:
    """Refuse two memberships of one symbol at one time, of the file or of the file and the lake."""
    problems = []
    ordered = sorted(intervals, key=lambda one: (one[0].universe, one[0].symbol, one[0].from_date))
    for (before, first), (after, second) in pairwise(ordered):
        same = (before.universe, before.symbol) == (after.universe, after.symbol)
        if same and (before.to_date is None or after.from_date < before.to_date) and before.to_date != before.from_date:
            one, other = ("what is stored" if line is None else f"line {line}" for line in (first, second))
            until = "now" if before.to_date is None else before.to_date
            problems.append(f"{other}: {after.symbol} from {after.from_date} overlaps {one}: from {before.from_date} to {until}")
    if problems:
        raise DataError(f"{file.name}: {'; '.join(problems[:_MOST_PROBLEMS])}", remedy="correct the dates; nothing was stored")
