"""What option and action sources share: contracts read strictly, terms by root, sessions of snapshots, the clocks of actions."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flows.sources.action_rows import Action, action_table, added_up
from flows.sources.json_rows import Refusal, number, read_all
from flows.sources.option_rows import INDEX_ROOTS, Listed, listed, session_of

SHARES = 100.0


@pytest.mark.parametrize("underlying", ["BRK.B", "BRK/B", "BRK-B", "BRKB"])
def test_a_share_class_is_found_however_it_is_written(underlying: str) -> None:
    found = listed("BRKB251121C00510000", underlying, multiplier=SHARES)
    assert isinstance(found, Listed)
    assert (found.underlying, found.strike, found.expiry, found.right) == (underlying, 510.0, date(2025, 11, 21), "C")


@pytest.mark.parametrize(
    ("symbol", "said", "rule"),
    [
        ("ACME251121C00050000", {}, None),
        ("ACME  251121C00050000", {}, None),  # padded, as the OCC writes it
        ("ACME251121C00050000", {"strike": 50.0, "expiry": date(2025, 11, 21), "right": "Call"}, None),
        ("ACME251121C00050000", {"strike": 50.5}, "contradicts_symbol"),
        ("ACME251121C00050000", {"expiry": date(2025, 11, 22)}, "contradicts_symbol"),
        ("ACME251121C00050000", {"right": "put"}, "contradicts_symbol"),
        ("ACME251121C00050000", {"multiplier": None}, "multiplier_missing"),
        ("ACME251121C00050000", {"multiplier": 0.0}, "multiplier_missing"),
        ("ACME251121C00050000", {"multiplier": 150.0}, "non_standard_deliverable"),
        ("ACME2251121C00050000", {}, "non_standard_deliverable"),
        ("OTHER251121C00050000", {}, "non_standard_deliverable"),
        ("ACME251121C00050000", {"is_index": True}, "unknown_settlement"),
        ("SPXW251121C06800000", {}, "root_of_another"),
        ("ACME251321C00050000", {}, "bad_occ_symbol"),  # a thirteenth month
        ("ACME", {}, "bad_occ_symbol"),
    ],
)
def test_a_contract_is_standard_and_agrees_with_itself_or_is_refused(symbol: str, said: dict[str, Any], rule: str | None) -> None:
    found = listed(symbol, "ACME", **{"multiplier": SHARES, **said})
    assert (found.rule if isinstance(found, Refusal) else None) == rule


# Cboe, Nasdaq: exercise and settlement of index options in their product specifications.
@pytest.mark.parametrize(
    ("root", "underlying", "style", "settlement"),
    [
        ("SPX", "SPX", "european", "am_cash"),
        ("SPXW", "SPX", "european", "pm_cash"),
        ("XSP", "XSP", "european", "pm_cash"),
        ("VIX", "VIX", "european", "am_cash"),
        ("VIXW", "VIX", "european", "am_cash"),
        ("OEX", "OEX", "american", "pm_cash"),
        ("XEO", "XEO", "european", "pm_cash"),
        ("NDX", "NDX", "european", "am_cash"),
        ("NDXP", "NDX", "european", "pm_cash"),
        ("RUT", "RUT", "european", "am_cash"),
        ("RUTW", "RUT", "european", "pm_cash"),
        ("DJX", "DJX", "european", "am_cash"),
    ],
)
def test_index_options_have_the_terms_of_their_root(root: str, underlying: str, style: str, settlement: str) -> None:
    found = listed(f"{root}251121P01000000", underlying, multiplier=SHARES, is_index=True)
    assert isinstance(found, Listed)
    assert (found.style, found.settlement, found.multiplier) == (style, settlement, SHARES)


@given(
    root=st.from_regex(r"[A-Z]{1,5}", fullmatch=True).filter(lambda root: root not in INDEX_ROOTS),
    expiry=st.dates(date(2000, 1, 1), date(2068, 12, 31)),
    mills=st.integers(1, 99_999_999),
    right=st.sampled_from("CP"),
)
def test_every_standard_symbol_reads_back(root: str, expiry: date, mills: int, right: str) -> None:
    symbol = f"{root}{expiry:%y%m%d}{right}{mills:08d}"
    found = listed(symbol, root, multiplier=SHARES)
    assert isinstance(found, Listed)
    assert (found.occ_symbol, found.expiry, found.right, round(found.strike * 1000)) == (symbol, expiry, right, mills)


@pytest.mark.parametrize(
    ("newest", "answered", "session"),
    [
        ("2025-11-12T19:59:00", "2025-11-12T20:00:00", date(2025, 11, 12)),
        ("2025-11-14T20:59:59", "2025-11-16T12:00:00", date(2025, 11, 14)),  # asked on a Sunday, of Friday's quotes
        ("2025-11-15T15:00:00", "2025-11-16T12:00:00", date(2025, 11, 14)),  # a stamp of a Saturday is of no session of its own
        ("2025-11-13T01:30:00", "2025-11-13T02:00:00", date(2025, 11, 12)),  # half past eight in the evening in New York
        (None, "2025-11-12T14:29:00", date(2025, 11, 11)),  # a minute before the open
        (None, "2025-11-12T14:30:00", date(2025, 11, 12)),
        (None, "2025-11-27T20:00:00", date(2025, 11, 26)),  # Thanksgiving
    ],
)
def test_a_snapshot_is_of_the_session_its_quotes_are_of(newest: str | None, answered: str, session: date) -> None:
    moment = None if newest is None else datetime.fromisoformat(newest).replace(tzinfo=UTC)
    assert session_of(moment, datetime.fromisoformat(answered).replace(tzinfo=UTC), "XNYS") == session


@pytest.mark.parametrize(("value", "read"), [(None, None), ("", None), ("null", None), (0, 0.0), ("1.5", 1.5), (-2, -2.0)])
def test_a_number_is_read_or_absent(value: Any, read: float | None) -> None:
    assert number(value) == read


@pytest.mark.parametrize("value", [True, "NaN", float("inf"), "soon", [1]])
def test_what_is_no_number_is_no_number(value: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        number(value)


def test_an_entry_that_cannot_be_read_is_set_aside_as_it_came() -> None:
    good, bad = read_all([{"a": 1}, "text", {"b": 2}], "ACME", lambda one, symbol: (symbol, one["a"]))
    assert good == [("ACME", 1)]
    assert [(row.symbol, row.rule, row.raw) for row in bad] == [
        ("ACME", "wrong_type", {"entry": "text"}),
        ("ACME", "wrong_type", {"b": 2}),
    ]


def test_an_action_is_known_when_announced_else_when_it_takes_effect_and_never_after_it_was_read() -> None:
    read_at = datetime(2025, 11, 12, 20, tzinfo=UTC)
    holiday = Action(symbol="A", ex_date=date(2025, 9, 1), kind="split", value=2.0)  # Labor Day: the open of the 2nd
    ahead = Action(symbol="A", ex_date=date(2025, 12, 1), kind="split", value=2.0)
    declared = Action(symbol="A", ex_date=date(2025, 11, 28), kind="dividend", value=1.0, declared=date(2025, 10, 30))
    late = Action(symbol="A", ex_date=date(2025, 11, 7), kind="dividend", value=1.0, declared=date(2025, 11, 20))
    known = action_table([holiday, ahead, declared, late], source="t", calendar="XNYS", answered_at=read_at)["available_at"]
    assert known.to_pylist() == [
        datetime(2025, 9, 2, 13, 30, tzinfo=UTC),
        read_at,
        datetime(2025, 10, 31, 3, 59, tzinfo=UTC),  # 23:59 in New York, summer time
        datetime(2025, 11, 7, 14, 30, tzinfo=UTC),  # whatever the vendor says: the open of the ex-date showed it
    ]


def test_payments_of_different_types_on_one_day_are_one_and_others_stay_apart() -> None:
    day = date(2025, 11, 7)

    def paid(value: float, label: str, **more: Any) -> Action:
        return Action(symbol="A", ex_date=day, kind="dividend", value=value, currency="USD", label=label, **more)

    (both,) = added_up([paid(0.25, "recurring", declared=date(2025, 10, 1)), paid(1.0, "special", declared=date(2025, 10, 9))])
    assert (both.value, both.declared) == (1.25, date(2025, 10, 9))
    (unsaid,) = added_up([paid(0.25, "recurring", declared=date(2025, 10, 1)), paid(1.0, "special")])
    assert unsaid.declared is None
    assert len(added_up([paid(0.25, "recurring"), paid(0.25, "recurring")])) == 2  # perhaps the same one twice: not for us to add
    assert len(added_up([paid(0.25, "recurring"), Action(symbol="A", ex_date=day, kind="split", value=2.0)])) == 2
