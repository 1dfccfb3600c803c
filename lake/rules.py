"""The declared rules of every table: what a row must be, in SQL, with a severity, a reason and a sentence that says what for.

Three severities: `refuse` (the row goes to quarantine), `flag` (it is stored, and named in the table `flags`), `note` (it is
stored; only `quant data check` counts it). Three scopes: a `row` by itself, an `answer` in the order its rows came in, a `series`
in the order of its own time, with its neighbours (`SERIES` says what a rule sees of them).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from config.tables import TableSpec
from lake.query import literal, quoted

__all__ = ["RULES", "SERIES", "Rule", "Scope", "Series", "Severity", "general_rules", "not_a_session", "rules_for"]

Severity = Literal["refuse", "flag", "note"]
Scope = Literal["row", "answer", "series"]

# Vendors that adjust prices round them: a high may be below a close in the last digits only.
_ROUNDING = "1e-9"
_IS_CALL, _IS_PUT = "\"right\" IN ('C', 'call')", "\"right\" IN ('P', 'put')"
_AT_KNOWN_TIME = frozenset({"equity_bars", "option_quotes", "macro_observations", "cot_positions"})

# A jump: beyond so many robust deviations of the sessions before it, and beyond the floor; where too few are known, the step alone.
JUMP_DEVIATIONS, JUMP_FLOOR, JUMP_ALONE = 10.0, 0.10, 0.50
JUMP_SESSIONS, JUMP_SESSIONS_NEEDED = 60, 20
# So many equal bars in a row are a feed that stands still, not a market.
STALE_SESSIONS = 5
# Positions are whole contracts, but those of combined reports are rounded, category by category.
CONTRACTS_ROUNDED = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One demand on a row.

    Parameters
    ----------
    name : str
        Stable, as stored in quarantine and in flags.
    breaks : str
        SQL: true where the row breaks the rule. NULL counts as false. Over the row's columns; in the scope `series` also over
        those of the table's `Series`; in the scope `answer` over `previous_ordinal_time` and `newest_first`.
    reason : str
        SQL for the sentence that says why, with the values.
    severity : {"refuse", "flag", "note"}
    doc : str
        What the rule is for.
    scope : {"row", "answer", "series"}
    by_source : mapping of str to severity
        Sources for which the rule has another severity.
    """

    name: str
    breaks: str
    reason: str
    severity: Severity = "refuse"
    doc: str = ""
    scope: Scope = "row"
    by_source: Mapping[str, Severity] = field(default_factory=dict)

    def condition(self, severity: Severity) -> str | None:
        """SQL: true where the row breaks the rule and the rule has that severity for its source; None where it never has."""
        others = sorted(source for source, its in self.by_source.items() if its != severity)
        named = sorted(source for source, its in self.by_source.items() if its == severity)
        if self.severity == severity:
            return f"(({self.breaks}) AND source NOT IN {_listed(others)})" if others else f"({self.breaks})"
        return f"(({self.breaks}) AND source IN {_listed(named)})" if named else None

    def severity_sql(self) -> str:
        """SQL: the rule's severity for the row's source."""
        named = " ".join(f"WHEN {literal(source)} THEN {literal(its)}" for source, its in sorted(self.by_source.items()))
        return f"CASE source {named} ELSE {literal(self.severity)} END" if named else literal(self.severity)

    def as_dict(self) -> dict[str, object]:
        """Plain values, for JSON."""
        return {
            "rule": self.name,
            "severity": self.severity,
            "by_source": dict(self.by_source),
            "scope": self.scope,
            "breaks": self.breaks,
            "reason": self.reason,
            "doc": self.doc,
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Series:
    """What a table's `series` rules see beside the row.

    Parameters
    ----------
    sql : str
        A SELECT of every row with columns more; `{rows}` and `{actions}` stand for the rows and for the corporate actions.
    needs_actions : bool
        Whether it reads `{actions}`.
    """

    sql: str
    needs_actions: bool = False


def _listed(values: list[str]) -> str:
    return f"({', '.join(map(literal, values))})"


def _not_positive(column: str) -> Rule:
    return Rule(
        name="price_not_positive", breaks=f"{column} <= 0", reason=f"'{column} is ' || {column}", doc="Prices are above zero."
    )


def _negative(column: str) -> Rule:
    return Rule(name="negative_value", breaks=f"{column} < 0", reason=f"'{column} is ' || {column}", doc="Counts are not negative.")


# Cboe's own VIX history breaks the order of high and low in 47 rows: they are what the index's publisher says, and kept.
_PUBLISHERS_OWN: Mapping[str, Severity] = {"cboe": "flag"}

_BAR_RULES = (
    Rule(name="close_missing", breaks="close IS NULL", reason="'the bar has no close'", doc="A bar without a close says nothing."),
    *(_not_positive(column) for column in ("open", "high", "low", "close")),
    Rule(
        name="high_below_low",
        breaks=f"high * (1 + {_ROUNDING}) < low",
        reason="'high ' || high || ' is below low ' || low",
        doc="Crossed prices: the highest is not below the lowest.",
        by_source=_PUBLISHERS_OWN,
    ),
    Rule(
        name="high_below_price",
        breaks=f"high * (1 + {_ROUNDING}) < greatest(open, close)",
        reason="'high ' || high || ' is below ' || greatest(open, close) || ', the higher of open and close'",
        doc="No price of a bar is above its high.",
        by_source=_PUBLISHERS_OWN,
    ),
    Rule(
        name="low_above_price",
        breaks=f"low * (1 - {_ROUNDING}) > least(open, close)",
        reason="'low ' || low || ' is above ' || least(open, close) || ', the lower of open and close'",
        doc="No price of a bar is below its low.",
        by_source=_PUBLISHERS_OWN,
    ),
    _negative("volume"),
    Rule(
        name="time_goes_backwards",
        breaks="event_time < previous_ordinal_time AND NOT newest_first",
        reason="event_time || ' came after ' || previous_ordinal_time || ' in the answer'",
        severity="flag",
        scope="answer",
        doc="An answer's bars of a symbol are in one order of time, oldest or newest first; one that jumps back is worth a look.",
    ),
    Rule(
        name="price_jump",
        breaks=f"abs(step) > {JUMP_FLOOR} AND (abs(step) > {JUMP_DEVIATIONS} * deviation OR (deviation IS NULL "
        f"AND abs(step) > {JUMP_ALONE}))",
        reason="'close ' || close || ' after ' || previous_close || ' on ' || previous_session || ': a log return of ' "
        "|| round(step, 4) || coalesce(', ' || round(abs(step) / nullif(deviation, 0), 1) || ' robust deviations', '')",
        severity="flag",
        scope="series",
        doc=f"|log return|, after the splits and cash of corporate_actions, above {JUMP_FLOOR:g} and above {JUMP_DEVIATIONS:g} x "
        f"1.4826 x the median absolute log return of the {JUMP_SESSIONS} bars before it; above {JUMP_ALONE:g} where fewer than "
        f"{JUMP_SESSIONS_NEEDED} are known.",
    ),
    Rule(
        name="stale_repeat",
        breaks=f"alike_before >= {STALE_SESSIONS - 1} AND coalesce(volume, 1) > 0 AND interval = '1d'",
        reason="'the same prices and volume as on each of the ' || alike_before || ' sessions before'",
        severity="flag",
        scope="series",
        doc=f"{STALE_SESSIONS} sessions in a row with identical prices and volume: a feed that stands still.",
    ),
    Rule(
        name="zero_volume",
        breaks="volume = 0 AND most_volume > 0 AND interval = '1d'",
        reason="'no volume on ' || session || ', while other sessions have up to ' || most_volume",
        severity="flag",
        scope="series",
        doc="No volume on a session, of a symbol that has volume on others (an index never has).",
    ),
)

_ACTION_RULES = (
    Rule(
        name="unknown_kind",
        breaks="kind NOT IN ('split', 'dividend', 'special_dividend', 'capital_gain', 'rename', 'delisting', 'listing')",
        reason="'kind is ' || kind",
        doc="The kinds that the table knows.",
    ),
    Rule(
        name="ratio_not_positive",
        breaks="kind = 'split' AND (value IS NULL OR value <= 0)",
        reason="'a split of ' || coalesce(value::VARCHAR, 'no ratio')",
        doc="A split has a ratio above zero.",
    ),
    Rule(
        name="dividend_negative",
        breaks="kind IN ('dividend', 'special_dividend', 'capital_gain') AND (value IS NULL OR value < 0)",
        reason="'a ' || kind || ' of ' || coalesce(value::VARCHAR, 'no amount')",
        doc="Cash paid out has an amount.",
    ),
    Rule(
        name="rename_without_name",
        breaks="kind = 'rename' AND (new_symbol IS NULL OR new_symbol = symbol)",
        reason="'renamed to ' || coalesce(new_symbol, 'nothing')",
        doc="A rename says the new symbol.",
    ),
)

_OPTION_RULES = (
    _not_positive("strike"),
    Rule(
        name="price_not_positive",
        breaks="multiplier <= 0",
        reason="'multiplier is ' || multiplier",
        doc="Contracts deliver something.",
    ),
    *(_negative(column) for column in ("bid", "ask", "last", "bid_size", "ask_size", "volume", "open_interest")),
    Rule(
        name="bid_above_ask",
        breaks="bid > ask",
        reason="'bid ' || bid || ' is above ask ' || ask",
        doc="Crossed quotes cannot be traded on.",
    ),
    Rule(
        name="quoted_after_expiry",
        breaks="session > expiry",
        reason="'quoted on ' || session || ', expired on ' || expiry",
        doc="A contract is not quoted once it has expired.",
    ),
    Rule(
        name="unknown_right",
        breaks="\"right\" NOT IN ('C', 'P', 'call', 'put')",
        reason="'right is ' || \"right\"",
        doc="Calls and puts.",
    ),
    Rule(
        name="implied_volatility_out_of_range",
        breaks="implied_volatility < 0 OR implied_volatility > 5",
        reason="'implied volatility is ' || implied_volatility",
        severity="flag",
        doc="A year's implied volatility is between 0 and 5 (500 %).",
    ),
    Rule(
        name="implied_volatility_zero",
        breaks="implied_volatility = 0",
        reason="'implied volatility is 0'",
        severity="note",
        doc="Vendors write 0 where none could be computed.",
    ),
    Rule(
        name="delta_out_of_range",
        breaks=f"abs(delta) > 1.000001 OR ({_IS_CALL} AND delta < -1e-6) OR ({_IS_PUT} AND delta > 1e-6)",
        reason="'delta of a ' || \"right\" || ' is ' || delta",
        severity="flag",
        doc="A call's delta is between 0 and 1, a put's between -1 and 0.",
    ),
    Rule(
        name="bid_above_bound",
        breaks=f"({_IS_CALL} AND bid > underlying_price * 1.005) OR ({_IS_PUT} AND bid > strike * 1.005)",
        reason="'bid ' || bid || ' of a ' || \"right\" || ' at ' || strike || ' with the underlying at ' "
        "|| coalesce(underlying_price::VARCHAR, 'unknown')",
        severity="flag",
        doc="A call is worth no more than the underlying, a put no more than its strike (half a per cent off: two instants).",
    ),
    Rule(
        name="ask_below_intrinsic",
        breaks=f"style = 'american' AND ask > 0 AND ask < CASE WHEN {_IS_CALL} THEN underlying_price - strike "
        "ELSE strike - underlying_price END - 0.005 * underlying_price",
        reason="'ask ' || ask || ' of an American ' || \"right\" || ' at ' || strike || ' with the underlying at ' "
        "|| underlying_price",
        severity="flag",
        doc="An American option asks at least what exercising it gives (half a per cent of the underlying off: two instants).",
    ),
)

_MACRO_RULES = (
    Rule(
        name="period_after_vintage",
        breaks="period > vintage",
        reason="'period ' || period || ' lies after its vintage ' || vintage",
        doc="A value of a period that has not begun is a forecast; as an observation it would be known too early.",
    ),
    Rule(
        name="unit_change",
        breaks="unit <> previous_unit",
        reason="'the unit is ' || unit || ', before it was ' || previous_unit",
        severity="flag",
        scope="series",
        doc="A series that changes its unit (a new base year, say) does not compare with its own past.",
    ),
)

_COT_RULES = (
    *(
        _negative(column)
        for column in ("open_interest", "long", "short", "spreading", "traders_long", "traders_short", "traders_spreading")
    ),
    *(
        Rule(
            name="position_above_open_interest",
            breaks=f"{side} + coalesce(spreading, 0) > open_interest + {CONTRACTS_ROUNDED}",
            reason=f"'{side} ' || {side} || ' and spreading ' || coalesce(spreading, 0) || ' exceed the open interest ' "
            "|| open_interest",
            severity="flag",
            doc="No group holds more than the whole market (a few contracts of rounding in combined reports).",
        )
        for side in ("long", "short")
    ),
    *(
        Rule(
            name="sides_do_not_add_up",
            breaks=f"abs(all_{side} - open_interest) > {CONTRACTS_ROUNDED} AND first_of_market",
            reason=f"'{side} and spreading positions of all groups are ' || all_{side} || ', the open interest is ' "
            "|| open_interest",
            severity="flag",
            scope="series",
            doc="Each contract has one long and one short side: the groups' positions add up to the open interest, on either side.",
        )
        for side in ("long", "short")
    ),
)

_MEMBERSHIP_RULES = (
    Rule(
        name="interval_reversed",
        breaks="to_date < from_date",
        reason="'from ' || from_date || ' to ' || to_date",
        doc="A membership does not end before it begins (one that ends where it begins was withdrawn).",
    ),
)

RULES: dict[str, tuple[Rule, ...]] = {
    "equity_bars": _BAR_RULES,
    "corporate_actions": _ACTION_RULES,
    "option_quotes": _OPTION_RULES,
    "macro_observations": _MACRO_RULES,
    "cot_positions": _COT_RULES,
    "universe_membership": _MEMBERSHIP_RULES,
}

# Actions fall on the first bar on or after their ex-date; several of a day (and one told by several sources) count once each.
_BARS_IN_ORDER = f"""
WITH dealt AS (
    SELECT symbol, ex_date, kind, max(value) AS value FROM {{actions}}
    WHERE kind IN ('split', 'dividend', 'special_dividend', 'capital_gain') GROUP BY ALL
), told AS (
    SELECT symbol, ex_date, coalesce(product(value) FILTER (kind = 'split'), 1.0) AS shares,
        coalesce(sum(value) FILTER (kind <> 'split'), 0.0) AS cash FROM dealt GROUP BY ALL
), ordered AS (
    SELECT *, lag(close) OVER w AS previous_close, lag(session) OVER w AS previous_session, row_number() OVER w AS nth,
        (open IS NOT DISTINCT FROM lag(open) OVER w AND high IS NOT DISTINCT FROM lag(high) OVER w
            AND low IS NOT DISTINCT FROM lag(low) OVER w AND close = lag(close) OVER w
            AND volume IS NOT DISTINCT FROM lag(volume) OVER w) AS alike,
        max(volume) OVER (PARTITION BY symbol, interval, source) AS most_volume
    FROM {{rows}} WINDOW w AS (PARTITION BY symbol, interval, source ORDER BY event_time)
), suspects AS (
    SELECT * FROM ordered WHERE abs(ln(close / previous_close)) > {JUMP_FLOOR} OR alike OR (volume = 0 AND most_volume > 0)
        OR (symbol, session) IN (SELECT (symbol, ex_date) FROM told)
), due AS (
    SELECT s.symbol, s.interval, s.source, s.event_time, product(t.shares) AS shares, sum(t.cash) AS cash
    FROM suspects s JOIN told t ON t.symbol = s.symbol AND t.ex_date > s.previous_session AND t.ex_date <= s.session
    WHERE s.basis = 'as_traded' GROUP BY ALL
), stepped AS (
    SELECT s.*, ln((s.close * coalesce(d.shares, 1.0) + coalesce(d.cash, 0.0)) / s.previous_close) AS step
    FROM suspects s LEFT JOIN due d USING (symbol, interval, source, event_time)
), spread AS (
    SELECT s.symbol, s.interval, s.source, s.nth, 1.4826 * median(abs(ln(o.close / o.previous_close))) AS deviation
    FROM (SELECT symbol, interval, source, nth, unnest(range(nth - {JUMP_SESSIONS}, nth)) AS before FROM stepped
        WHERE abs(step) > {JUMP_FLOOR}) s
    JOIN ordered o ON o.symbol = s.symbol AND o.interval = s.interval AND o.source = s.source AND o.nth = s.before
    WHERE o.previous_close IS NOT NULL GROUP BY ALL HAVING count(*) >= {JUMP_SESSIONS_NEEDED}
), standing AS (
    SELECT symbol, interval, source, nth, row_number() OVER w AS alike_before FROM (
        SELECT symbol, interval, source, nth, nth - row_number() OVER (PARTITION BY symbol, interval, source ORDER BY nth) AS run
        FROM suspects WHERE alike)
    WINDOW w AS (PARTITION BY symbol, interval, source, run ORDER BY nth)
)
SELECT s.*, p.deviation, a.alike_before FROM stepped s
LEFT JOIN spread p USING (symbol, interval, source, nth) LEFT JOIN standing a USING (symbol, interval, source, nth)
"""

SERIES: dict[str, Series] = {
    "equity_bars": Series(sql=_BARS_IN_ORDER, needs_actions=True),
    "macro_observations": Series(
        sql="SELECT *, lag(unit) OVER (PARTITION BY series, source ORDER BY available_at, vintage, period) AS previous_unit "
        "FROM {rows}"
    ),
    "cot_positions": Series(
        sql="SELECT *, sum(long + coalesce(spreading, 0)) FILTER (category NOT LIKE 'total%') OVER w AS all_long, "
        "sum(short + coalesce(spreading, 0)) FILTER (category NOT LIKE 'total%') OVER w AS all_short, "
        "row_number() OVER (PARTITION BY report, market_code, as_of_date, source ORDER BY category) = 1 AS first_of_market "
        "FROM {rows} WINDOW w AS (PARTITION BY report, market_code, as_of_date, source)"
    ),
}


def rules_for(spec: TableSpec, *, calendar: str | None = None) -> tuple[Rule, ...]:
    """The rules of a table, in the order in which they are tried.

    Parameters
    ----------
    spec : TableSpec
    calendar : str, optional
        Demand that sessions are on this exchange calendar; without it rows that name a calendar of their own are held to that.
    """
    own = (*general_rules(spec), *RULES.get(spec.name, ()))
    if "session" not in spec.schema.names or (calendar is None and "calendar" not in spec.schema.names):
        return own
    return (*own, not_a_session(calendar))


def not_a_session(calendar: str | None) -> Rule:
    """Sessions are sessions of the calendar: the one named, else the row's own."""
    if calendar is None:
        breaks, named = "(calendar, session) IN (SELECT (calendar, session) FROM closed_days)", "' || calendar"
    else:
        breaks, named = "session IN (SELECT session FROM closed_days)", f"{calendar}'"
    return Rule(
        name="not_a_session",
        breaks=breaks,
        reason=f"session || ' is no session of the calendar {named}",
        doc="A bar on a holiday or a weekend of its exchange has another day's prices, or none.",
    )


def general_rules(spec: TableSpec) -> tuple[Rule, ...]:
    """What every table demands: nothing missing that must be there, finite numbers, no event later than its publication."""
    rules = [
        Rule(
            name="value_missing",
            breaks=f"{quoted(column.name)} IS NULL",
            reason=f"'{column.name} is missing'",
            doc="A key, a clock or a column that every row has.",
        )
        for column in spec.schema
        if column.name != "recorded_at" and (not column.nullable or column.name in spec.key)
    ]
    # A feature that is still warming up is NaN; elsewhere a missing number is NULL.
    warms_up = spec.name.startswith("features/")
    for column in spec.columns:
        if pa.types.is_floating(column.type):
            name = quoted(column.name)
            rules.append(
                Rule(
                    name="not_finite",
                    breaks=f"isinf({name})" if warms_up else f"isinf({name}) OR isnan({name})",
                    reason=f"'{column.name} is ' || {name}",
                    doc="Numbers are finite; an absence is NULL.",
                )
            )
    if spec.name in _AT_KNOWN_TIME:  # dividends and memberships are announced ahead of their day
        event = quoted(spec.event_time)
        rules.append(
            Rule(
                name="known_before_it_happened",
                breaks=f"{event}::TIMESTAMPTZ > available_at",
                reason=f"'{spec.event_time} ' || {event} || ' is after available_at ' || available_at",
                doc="Nothing is known before it happens.",
            )
        )
    return tuple(rules)
