"""What users write when they ask for an ingest, made exact: names, dates, keys, a run's name, the chain of sources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

from pydantic import SecretStr

from config.errors import ConfigError, InputError, did_you_mean
from config.orchestration import some_of
from config.settings import Settings
from flows.sources.base import DatasetName, get_source, source_options

__all__ = ["as_day", "as_names", "as_window", "make_sources", "run_words", "with_key"]


def as_names(names: str | Sequence[str] | None, what: str) -> tuple[str, ...] | None:
    """A user's list of names: one as text, several as a sequence, each once, in the order given; None: all.

    Raises
    ------
    InputError
        The list is empty, or holds something that is no text.
    """
    if names is None:
        return None
    listed = [names] if isinstance(names, str) else list(names)
    if not listed:
        raise InputError(
            f"no {what} to ingest: the list is empty", remedy=f"name some {what}, or leave them out for all the source has"
        )
    for name in listed:
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"{name!r} in the list of {what} is no name")
    return tuple(dict.fromkeys(name.strip() for name in listed))


def as_day(value: date | str | None, what: str) -> date | None:
    """A user's date: a date, or text as 2018-12-31.

    Raises
    ------
    InputError
        The text is no date.
    """
    if value is None or (isinstance(value, date) and not isinstance(value, datetime)):
        return value
    if isinstance(value, datetime):
        return value.date()
    try:
        return date.fromisoformat(value)
    except (ValueError, TypeError):
        raise InputError(f"{what} {value!r} is no date", remedy="write it as 2018-12-31") from None


def as_window(start: date | str | None, end: date | str | None) -> tuple[date | None, date | None]:
    """A user's first and last day.

    Raises
    ------
    InputError
        One is no date, or the first lies after the last.
    """
    first, last = as_day(start, "start_date"), as_day(end, "end_date")
    if first and last and first > last:
        raise InputError(f"start_date {first} lies after end_date {last}", remedy="exchange them")
    return first, last


def run_words(names: str | Sequence[str] | None, what: str, window: tuple[Any, Any], source: str | None) -> str:
    """What an ingest run is called on the Prefect page: ``X, 2018-12-24 to 2018-12-26, from files``."""
    start, end = window
    days = "" if start is None and end is None else f", {start or 'the first day'} to {end or 'the last day'}"
    return f"{some_of(names, all_of=f'all {what}')}{days}{f', from {source}' if source else ''}"


def with_key(settings: Settings, provider: str, key: str | SecretStr | None) -> tuple[Settings, tuple[str, ...]]:
    """The settings with the caller's key for `provider` in place of the environment's, and a note when no key has a place there.

    A key is never part of a request, a report or an error.
    """
    if key is None:
        return settings, ()
    if provider not in type(settings.credentials).model_fields:
        return settings, (f"the key was not used: the source {provider} needs none",)
    secret = key if isinstance(key, SecretStr) else SecretStr(key)
    return settings.model_copy(update={"credentials": settings.credentials.model_copy(update={provider: secret})}), ()


def make_sources(
    names: Sequence[str], dataset: DatasetName, settings: Settings, options: Mapping[str, Any]
) -> tuple[list[Any], tuple[str, ...]]:
    """The sources of a chain, each with those of the caller's options that it takes, and with its own from `data.source_options`.

    A source of a chain that cannot be asked (no key, an option missing) is left out, and a note says so; a source that was
    named alone, or a chain without any that can be asked, is an error.

    Returns
    -------
    sources : list
    notes : tuple of str
        Why a source was left out.

    Raises
    ------
    InputError
        No source takes an option; an option has a wrong value; no source can be asked.
    """
    taken = {name: source_options(name, dataset) for name in names}
    known = tuple(dict.fromkeys(option for accepted in taken.values() for option in accepted))
    alone = len(names) == 1
    for option in options if not alone else ():
        if option not in known:
            raise InputError(f"none of {', '.join(names)} has an option {option!r}", remedy=did_you_mean(option, known))
    sources: list[Any] = []
    notes: list[str] = []
    first: InputError | None = None
    for name in names:
        accepted = taken[name]
        own = settings.data.source_options.get(name, {})  # of all its datasets together
        given = {**{o: v for o, v in own.items() if o in accepted}, **{o: v for o, v in options.items() if alone or o in accepted}}
        lacking = [option for option, needed in accepted.items() if needed and option not in given]
        if lacking and not alone:
            first = first or InputError(
                f"{name} needs {', '.join(lacking)}", remedy=f"pass it, or set data.source_options.{name} in quantrail.yaml"
            )
            notes.append(f"{name} was not asked: it needs {', '.join(lacking)}")
            continue
        try:
            sources.append(get_source(name, dataset, settings, **given))
        except ConfigError as problem:
            first = first or problem
            notes.append(f"{name} was not asked: {problem.message}")
    if not sources:
        assert first is not None
        raise first
    return sources, tuple(notes)
