"""Whose letters they are: companies through symbol changes, delistings, and letters that went to another company.

1. `read_listings` reads renames, delistings and listings of `corporate_actions` as known at a moment, and lets sources agree
   (`_agreed`).
2. `Listings.spells` cuts the time of one set of letters into spells, each of one company.
3. `Listings.history` follows renames from spell to spell, both ways: that chain is the company.

The lake keeps bars under the letters of their day. Letters of which no such action is known are one company's for all time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TYPE_CHECKING, Any

from config.errors import QualityError, UnknownNameError

if TYPE_CHECKING:
    from lake.reading import Tables

__all__ = ["LISTING_KINDS", "NEAR_DAYS", "History", "Listings", "Spell", "histories", "history", "read_listings"]

LISTING_KINDS = ("rename", "delisting", "listing")
NEAR_DAYS = 4
"""Two sources that date one action within so many days of one another, and neither tells the other's date, disagree."""
_VALUE_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class Spell:
    """A time in which one company held some letters.

    Parameters
    ----------
    symbol : str
    start : date or None
        First day; None: since before anything that is known.
    end : date or None
        The first day on which it no longer held them; None: it still does.
    """

    symbol: str
    start: date | None
    end: date | None

    def holds(self, day: date) -> bool:
        """Whether `day` lies in it."""
        return (self.start is None or self.start <= day) and (self.end is None or day < self.end)

    def __str__(self) -> str:
        since = "" if self.start is None else f" from {self.start}"
        return f"{self.symbol}{since}{'' if self.end is None else f' until {self.end}'}"


@dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """One company's letters through time, as far as is known.

    Parameters
    ----------
    spells : tuple of Spell
        Ascending, each beginning where the one before ends.
    delisted : date or None
        The first session without a bar.
    final_value : float or None
        Cash a share that its holders got at the delisting; None: it is not known, which is not zero.
    """

    spells: tuple[Spell, ...]
    delisted: date | None = None
    final_value: float | None = None

    @property
    def symbol(self) -> str:
        """The newest letters."""
        return self.spells[-1].symbol

    @property
    def plain(self) -> bool:
        """Whether the letters have always been this company's, as far as is known."""
        return len(self.spells) == 1 and self.spells[0].start is None and self.spells[0].end is None

    def upto(self, day: date) -> History:
        """The same without what happened after a day."""
        spells = tuple(spell for spell in self.spells if spell.start is None or spell.start <= day) or self.spells[:1]
        last = spells[-1]
        if last.end is None or last.end <= day:
            return self
        return History(spells=(*spells[:-1], Spell(last.symbol, last.start, None)))

    def letters_on(self, day: date) -> str | None:
        """The company's letters on a day; None after its delisting, or before its letters were its own."""
        return next((spell.symbol for spell in self.spells if spell.holds(day)), None)


@dataclass(frozen=True, slots=True)
class _Event:
    """What happened to letters on a day: somebody left them (`out`) or took them."""

    day: date
    out: bool
    kind: str
    other: str | None = None
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Listings:
    """What is known of who held which letters; made by `read_listings`."""

    events: Mapping[str, tuple[_Event, ...]] = field(default_factory=dict)
    conflicts: Mapping[str, str] = field(default_factory=dict)

    def spells(self, symbol: str) -> tuple[Spell, ...]:
        """The spells of some letters, ascending, each of another company.

        Raises
        ------
        QualityError
            Sources disagree about these letters, or they were left twice and nobody is known to have taken them in between.
        """
        if symbol in self.conflicts:
            raise QualityError(self.conflicts[symbol], remedy='correct one of the actions, or choose a source: action_source="…"')
        found: list[Spell] = []
        start: date | None = None
        held = True
        for event in self.events.get(symbol, ()):
            if event.out and not held:
                raise QualityError(
                    f"{symbol}: {event.kind} on {event.day}, but the letters were given up on {found[-1].end} and nobody took them",
                    remedy=f"add a corporate action of kind listing for the day on which {symbol} went to another company",
                )
            if event.out or held:
                found.append(Spell(symbol, start, event.day))
            held, start = not event.out, None if event.out else event.day
        return (*found, Spell(symbol, start, None)) if held else tuple(found)

    def history(self, symbol: str, *, on: date | None = None, until: date | None = None) -> History:
        """The company that holds, or held, some letters.

        Parameters
        ----------
        symbol : str
        on : date, optional
            The company that held the letters on this day, and no other.
        until : date, optional
            The last company that took the letters on or before this day. With neither, the last one that is known.

        Raises
        ------
        UnknownNameError
            Nobody held the letters on that day; the message says who did, and when.
        QualityError
            Sources disagree, or the reports cannot all be true.
        """
        spells = self.spells(symbol)
        if on is not None:
            fitting = [spell for spell in spells if spell.holds(on)]
        else:
            fitting = [spell for spell in spells if until is None or spell.start is None or spell.start <= until]
        if not fitting:
            listed = "; ".join(str(spell) for spell in spells)
            raise UnknownNameError(f"nobody held the letters {symbol} on {on or until}", remedy=f"known: {listed}")
        return self._chain(fitting[-1])

    def _chain(self, spell: Spell) -> History:
        chain = [spell]
        while (before := self._before(chain[0])) is not None:
            chain.insert(0, before)
        while (after := self._after(chain[-1])) is not None:
            chain.append(after)
        end = chain[-1].end
        gone = next((e for e in self.events.get(chain[-1].symbol, ()) if e.kind == "delisting" and e.day == end), None)
        return History(
            spells=tuple(chain), delisted=None if gone is None else gone.day, final_value=None if gone is None else gone.value
        )

    def _before(self, spell: Spell) -> Spell | None:
        came = self._event(spell.symbol, spell.start, out=False)
        if came is None or came.other is None:
            return None
        return next((one for one in self.spells(came.other) if one.end == spell.start), None)

    def _after(self, spell: Spell) -> Spell | None:
        left = self._event(spell.symbol, spell.end, out=True)
        if left is None or left.other is None:
            return None
        return next((one for one in self.spells(left.other) if one.start == spell.end), None)

    def _event(self, symbol: str, day: date | None, *, out: bool) -> _Event | None:
        of_day = [event for event in self.events.get(symbol, ()) if event.day == day and event.out == out]
        return next(iter(of_day), None)


def read_listings(snapshot: Tables, *, as_of: datetime | None = None, action_source: str | Sequence[str] | None = None) -> Listings:
    """Read who held which letters, as known at `as_of`.

    Parameters
    ----------
    snapshot : Snapshot
    as_of : datetime, optional
        Aware. A rename counts from the moment it was available, also where its ex-date lies ahead.
    action_source : str or sequence of str, optional
        Only actions of these sources; all by default, which must then agree where they speak of the same.

    Notes
    -----
    A report that contradicts another is not raised here but when its letters are asked for.
    """
    chosen = [action_source] if isinstance(action_source, str) else None if action_source is None else list(action_source)
    where: dict[str, Any] = {"kind": list(LISTING_KINDS)} | ({} if chosen is None else {"source": chosen})
    columns = ["symbol", "ex_date", "kind", "source", "value", "new_symbol"]
    rows = snapshot.read("corporate_actions", where=where, as_of=as_of, columns=columns).to_pylist()
    kept, conflicts = _agreed(rows)
    events: dict[str, list[_Event]] = {}
    renamed = {(row["symbol"], row["ex_date"]) for row in kept if row["kind"] == "rename"}
    for row in kept:
        symbol, day, kind = row["symbol"], row["ex_date"], row["kind"]
        if kind == "rename":
            events.setdefault(symbol, []).append(_Event(day, True, kind, row["new_symbol"]))
            events.setdefault(row["new_symbol"], []).append(_Event(day, False, kind, symbol))
        elif kind == "listing":
            events.setdefault(symbol, []).append(_Event(day, False, kind))
        elif (symbol, day) not in renamed:  # vendors also call letters delisted on the day their company changed them
            events.setdefault(symbol, []).append(_Event(day, True, kind, value=row["value"]))
    # Who leaves letters leaves them before the next company takes them; a rename names who took them, a listing does not.
    ordered = {
        symbol: _each_once(sorted(found, key=lambda e: (e.day, not e.out, e.other is None))) for symbol, found in events.items()
    }
    return Listings(ordered, conflicts)


def _each_once(events: Iterable[_Event]) -> tuple[_Event, ...]:
    found: dict[tuple[date, bool], _Event] = {}
    for event in events:
        found.setdefault((event.day, event.out), event)
    return tuple(found.values())


def _agreed(rows: Sequence[Mapping[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """One row an action, whoever reported it, and what is wrong with some letters' actions, in words."""
    kept: dict[tuple[str, str, date], dict[str, Any]] = {}
    conflicts: dict[str, str] = {}
    by_letters: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in sorted(rows, key=lambda r: (r["symbol"], r["kind"], r["ex_date"], r["source"])):
        symbol, kind, day = row["symbol"], row["kind"], row["ex_date"]
        if kind == "rename" and (not row["new_symbol"] or row["new_symbol"] == symbol):
            conflicts[symbol] = f"{symbol}: the rename of {day} from {row['source']} names {row['new_symbol'] or 'no new letters'}"
            continue
        by_letters.setdefault((symbol, kind), []).append(row)
        first = kept.setdefault((symbol, kind, day), dict(row))
        if (kind == "rename" and first["new_symbol"] != row["new_symbol"]) or not _equal(first["value"], row["value"]):
            said = [f"{r['source']} says {r['new_symbol'] if kind == 'rename' else r['value']}" for r in (first, row)]
            conflicts[symbol] = f"{symbol}: sources disagree about the {kind} of {day}: {' and '.join(said)}"
        elif first["value"] is None:
            first["value"] = row["value"]
    for (symbol, kind), found in by_letters.items():
        message = _two_dates(symbol, kind, found)
        if message:
            conflicts[symbol] = message
    for row in kept.values():  # a company is not to be followed into letters that cannot be trusted
        if row["kind"] == "rename" and row["symbol"] in conflicts:
            conflicts.setdefault(row["new_symbol"], conflicts[row["symbol"]])
    return list(kept.values()), conflicts


def _two_dates(symbol: str, kind: str, rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Two sources that date what must be one action differently, in words; None where they do not."""
    told = {(row["source"], row["ex_date"]) for row in rows}
    for one in rows:
        for other in rows:
            apart = (other["ex_date"] - one["ex_date"]).days
            if one["source"] == other["source"] or not 0 < apart <= NEAR_DAYS:
                continue
            if (one["source"], other["ex_date"]) not in told and (other["source"], one["ex_date"]) not in told:
                dates = f"{one['source']} says {one['ex_date']} and {other['source']} says {other['ex_date']}"
                return f"{symbol}: sources disagree about the day of a {kind}: {dates}"
    return None


def _equal(one: float | None, other: float | None) -> bool:
    return one is None or other is None or abs(one - other) <= _VALUE_TOLERANCE * max(abs(one), abs(other))


def history(snapshot: Tables, symbol: str, on: date | None = None, *, as_of: datetime | None = None) -> History:
    """The company that held some letters on a day, with its letters before and after, as known at `as_of`.

    Parameters
    ----------
    on : date, optional
        The last company that is known to have held them, by default.

    Raises
    ------
    UnknownNameError, QualityError
        As `Listings.history`.
    """
    return read_listings(snapshot, as_of=as_of).history(symbol, on=on)


def histories(
    snapshot: Tables, symbols: Iterable[str], on: date | None = None, *, as_of: datetime | None = None
) -> dict[str, History]:
    """`history` of many letters in one read: ``{letters then: h.symbol}`` turns a day's universe into today's letters."""
    listings = read_listings(snapshot, as_of=as_of)
    return {symbol: listings.history(symbol, on=on) for symbol in symbols}
