"""The `modelled` source of option quotes: a model's chain over real index closes and the real volatility index in the lake.

1. `ModelledOptions.quotes` reads closes and index from a lake snapshot (`read_inputs`), with the ingests they came from.
2. `build_chain` lists contracts by monthly expiry, solves the level of volatility session by session (`chain_model`), and
   quotes every listed contract.
3. The answer's payload is the canonical text of the inputs and of the model's parameters: the same inputs are the same ingest.

No row is a market quote. Source and `data_kind` of every row say `modelled`; a result on it cannot be promoted to live.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from config.calendar import session_closes
from config.errors import DataError, InputError, UnknownNameError, did_you_mean
from config.hashing import canonical_json
from config.settings import Settings
from flows.sources.base import Answer
from flows.sources.chain_model import ChainModel, Levels, listed_strikes, model_volatility, monthly_expiries, quote, solve_levels
from flows.sources.shape import table_of
from risk.greeks import greeks
from risk.volatility_index import INDEX_DAYS

if TYPE_CHECKING:
    from lake import Snapshot

__all__ = ["ChainInputs", "ModelledChain", "ModelledOptions", "build_chain", "read_inputs"]

Floats: TypeAlias = NDArray[np.float64]

VOLATILITY_INDEX = {"SP500": "VIXCLS"}
QUOTE_DELAY = pd.Timedelta(minutes=15)  # VIX closes a quarter of an hour after the stock market
_NS_YEAR = 365.0 * 86_400e9


@dataclass(frozen=True, kw_only=True)
class ChainInputs:
    """What the chain is built from: real values, each with the moment it was known.

    Parameters
    ----------
    underlying, volatility_series : str
    close : Series of shape (n_sessions,)
        Closes from the listing of the first expiry on; index `session`.
    index : Series of shape (n_sessions,)
        The observed volatility index in points; NaN where there is none.
    known_at : DatetimeIndex of shape (n_sessions,)
        The moment both were known, UTC.
    first : Timestamp
        The first session to quote (closes before it only say what is listed).
    ingest_ids : tuple of str
    """

    underlying: str
    volatility_series: str
    close: pd.Series
    index: pd.Series
    known_at: pd.DatetimeIndex
    first: pd.Timestamp
    ingest_ids: tuple[str, ...]

    @property
    def quoted(self) -> NDArray[np.bool_]:
        """The sessions that can be quoted: from `first` on, with an index."""
        return np.asarray((self.close.index >= self.first) & self.index.notna().to_numpy())

    def payload(self, model: ChainModel) -> bytes:
        """Inputs and parameters as canonical JSON."""
        days = pd.DatetimeIndex(self.close.index).strftime("%Y-%m-%d")
        moments = self.known_at.strftime("%Y-%m-%dT%H:%M:%SZ")
        rows = [
            [day, float(close), None if np.isnan(level) else float(level), moment]
            for day, close, level, moment in zip(days, self.close, self.index, moments, strict=True)
        ]
        document = {
            "model": model.as_dict(),
            "underlying": self.underlying,
            "volatility_series": self.volatility_series,
            "first": self.first.strftime("%Y-%m-%d"),
            "columns": ["session", "close", "volatility_index", "known_at"],
            "inputs": rows,
            "input_ingest_ids": list(self.ingest_ids),
        }
        return canonical_json(document).encode()


@dataclass(frozen=True, kw_only=True)
class ModelledChain:
    """The quotes and what was solved for them.

    Parameters
    ----------
    rows : pyarrow.Table
        As `option_quotes`, with `available_at`.
    levels : DataFrame of shape (n_quoted_sessions, 3)
        `observed` and `modelled` volatility index (points) and the thirty-day at-the-money `volatility` (fraction).
    """

    rows: pa.Table
    levels: pd.DataFrame


class ModelledOptions:
    """Quotes of the modelled chain, from the newest published snapshot of the lake or a named one.

    Parameters
    ----------
    settings : Settings
    snapshot_id : str, optional
        The lake snapshot that holds the underlying's closes and the volatility index; the newest by default.
    model : ChainModel, optional
        Other assumptions or a narrower chain.
    volatility_series : mapping of str to str, optional
        Which macro series is the volatility index of which underlying; ``{"SP500": "VIXCLS"}``.
    """

    name = "modelled"
    names_per_request: int | None = 1
    incremental = False

    def __init__(
        self,
        settings: Settings,
        *,
        snapshot_id: str | None = None,
        model: ChainModel | None = None,
        volatility_series: Mapping[str, str] | None = None,
    ) -> None:
        self.settings = settings
        self.snapshot_id = snapshot_id
        self.model = model or ChainModel()
        self.volatility_series = dict(VOLATILITY_INDEX if volatility_series is None else volatility_series)

    def available(self) -> tuple[str, ...]:
        """The underlyings that have a volatility index."""
        return tuple(self.volatility_series)

    def quotes(self, underlyings: Sequence[str], start: date | None, end: date | None) -> Iterator[Answer]:
        """One answer an underlying; sessions without a volatility index have no chain, and a note says how many.

        Raises
        ------
        UnknownNameError
            No volatility index is known for an underlying.
        DataError
            The lake holds no closes of it, or no index on any session asked for.
        """
        from lake import open_lake

        for underlying in underlyings:
            if underlying not in self.volatility_series:
                raise UnknownNameError(
                    f"no volatility index is known for {underlying}, and the modelled chain is solved to match one",
                    remedy=f"{did_you_mean(underlying, self.available())}; or pass volatility_series={{{underlying!r}: SERIES}}",
                )
        snapshot = open_lake(self.settings).snapshot(self.snapshot_id)
        for underlying in underlyings:
            series = self.volatility_series[underlying]
            inputs = read_inputs(snapshot, underlying, series, start, end, self.model, sources=self.settings.data.equity)
            chain = build_chain(inputs, self.model)
            yield self._answer(inputs, chain, start, end)

    def _answer(self, inputs: ChainInputs, chain: ModelledChain, start: date | None, end: date | None) -> Answer:
        asked = int((inputs.close.index >= inputs.first).sum())
        error = float((chain.levels["modelled"] - chain.levels["observed"]).abs().mean())
        lacking = asked - len(chain.levels)
        return Answer(
            source=self.name,
            dataset="option_quotes",
            origin=f"model over {inputs.underlying} and {inputs.volatility_series} in the lake",
            request={
                "underlying": inputs.underlying,
                "volatility_series": inputs.volatility_series,
                "start": None if start is None else start.isoformat(),
                "end": None if end is None else end.isoformat(),
                "input_ingest_ids": list(inputs.ingest_ids),
            },
            payload=inputs.payload(self.model),
            rows=chain.rows,
            names=(inputs.underlying,),
            notes=(
                "modelled quotes, not market quotes",
                f"{len(chain.levels)} of {asked} sessions have a chain; {lacking} have no {inputs.volatility_series}",
                f"the index of the modelled quotes is {error:.3f} points from {inputs.volatility_series} on average",
                f"assumed: rate {self.model.rate_ann:.2%}, dividend yield {self.model.dividend_yield_ann:.2%}, a year",
            ),
        )


def read_inputs(
    snapshot: Snapshot,
    underlying: str,
    series: str,
    start: date | None,
    end: date | None,
    model: ChainModel,
    *,
    sources: Sequence[str] = (),
) -> ChainInputs:
    """Closes and volatility index out of the lake.

    Parameters
    ----------
    sources : sequence of str
        Sources of the bars in order of preference, where several hold the underlying.

    Raises
    ------
    DataError
        The snapshot lacks the closes, or the index on every session asked for.
    """
    listing = None if start is None else start - timedelta(days=model.expiry_days + 7)
    bars = snapshot.read("equity_bars", where={"symbol": [underlying], "interval": ["1d"]}, start=listing, end=end)
    held = sorted(set(bars["source"].to_pylist()))
    preferred = next((name for name in sources if name in held), held[0] if held else None)
    if preferred is None:
        raise DataError(
            f"the lake snapshot {snapshot.id} has no daily closes of {underlying}",
            remedy=f"run quant ingest equity {underlying} first",
        )
    frame = bars.filter(pc.equal(bars["source"], preferred)).to_pandas().dropna(subset=["close"])
    frame = frame.set_index(pd.DatetimeIndex(frame["session"], name="session")).sort_index()
    levels = _first_vintages(snapshot, series, listing, end)
    index = levels["value"].reindex(frame.index)
    quote_time = session_closes(pd.DatetimeIndex(frame.index)) + QUOTE_DELAY
    known = pd.DataFrame({"bar": frame["available_at"], "index": levels["available_at"].reindex(frame.index)}).max(axis=1)
    known_at = pd.DatetimeIndex(np.maximum(pd.DatetimeIndex(known).tz_convert("UTC"), quote_time))
    first = pd.Timestamp(start) if start is not None else pd.Timestamp(frame.index[0])
    ids = {*frame["ingest_id"], *levels["ingest_id"].reindex(frame.index).dropna()}
    inputs = ChainInputs(
        underlying=underlying,
        volatility_series=series,
        close=frame["close"].astype(float),
        index=index.astype(float),
        known_at=known_at,
        first=first,
        ingest_ids=tuple(sorted(ids)),
    )
    if not inputs.quoted.any():
        raise DataError(
            f"the lake snapshot {snapshot.id} has no {series} on any of the {len(frame)} sessions of {underlying} asked for",
            remedy=f"run quant ingest macro {series} first, or ask for sessions it covers",
        )
    return inputs


def _first_vintages(snapshot: Snapshot, series: str, start: date | None, end: date | None) -> pd.DataFrame:
    """The value of each period as first published: a later correction was not known when the chain would have been quoted."""
    table = snapshot.read("macro_observations", where={"series": [series]}, start=start, end=end).to_pandas()
    table = table.dropna(subset=["value"]).sort_values(["period", "vintage", "source"]).drop_duplicates("period")
    days = pd.DatetimeIndex(table["period"], name="session")
    return pd.DataFrame({name: table[name].to_numpy() for name in ("value", "available_at", "ingest_id")}, index=days)


@dataclass(frozen=True, slots=True)
class _Expiry:
    """One expiry's listing over the sessions it lives: positions into the inputs, strikes and flags."""

    day: date
    sessions: NDArray[np.intp]
    years: Floats
    strike: Floats
    calls: NDArray[np.bool_]
    puts: NDArray[np.bool_]


def build_chain(inputs: ChainInputs, model: ChainModel) -> ModelledChain:
    """List, solve and quote every session that has a volatility index.

    Raises
    ------
    InputError
        A session has no pair of expiries around thirty days.
    """
    expiries = _list_expiries(inputs, model)
    quoted = np.flatnonzero(inputs.quoted)
    near, following = _bracket(inputs, expiries, quoted)
    spot, observed = inputs.close.to_numpy()[quoted], inputs.index.to_numpy()[quoted]
    levels = solve_levels(spot, observed, _stack(expiries, near, quoted), _stack(expiries, following, quoted), model)
    frame = pd.DataFrame(
        {"observed": observed, "modelled": levels.index, "volatility": levels.volatility},
        index=pd.DatetimeIndex(inputs.close.index[quoted], name="session"),
    )
    return ModelledChain(rows=_rows(inputs, expiries, quoted, levels, model), levels=frame)


def _list_expiries(inputs: ChainInputs, model: ChainModel) -> list[_Expiry]:
    days = pd.DatetimeIndex(inputs.close.index)
    ends = monthly_expiries(days[0].date(), days[-1].date() + timedelta(days=model.expiry_days))
    settle = session_closes(pd.DatetimeIndex(ends))
    quote_time = session_closes(days) + QUOTE_DELAY
    found = []
    for day, moment in zip(ends, settle, strict=True):
        ahead = (pd.Timestamp(day) - days).days.to_numpy()
        alive = np.flatnonzero((ahead > 0) & (ahead <= model.expiry_days))
        if alive.size == 0:
            continue
        strike, calls, puts = listed_strikes(inputs.close.to_numpy()[alive], ahead[alive], model)
        years = (moment - quote_time[alive]).as_unit("ns").asi8 / _NS_YEAR
        found.append(_Expiry(day, alive, years, strike, calls, puts))
    return found


def _bracket(inputs: ChainInputs, expiries: list[_Expiry], quoted: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """For each quoted session the last expiry at most thirty days away and the one after it."""
    days = pd.DatetimeIndex(inputs.close.index)[quoted]
    ends = pd.DatetimeIndex([pd.Timestamp(expiry.day) for expiry in expiries])
    near = ends.searchsorted(days + pd.Timedelta(days=int(INDEX_DAYS)), side="right") - 1
    # When the next expiry is more than thirty days away and none is nearer, the next two are extrapolated.
    near = np.where((near < 0) | (ends[np.maximum(near, 0)] <= days), near + 1, near)
    if (near + 1 >= len(expiries)).any():
        raise InputError(f"no two expiries around thirty days after {days[-1]:%Y-%m-%d}", remedy="raise expiry_days")
    return near, near + 1


def _stack(expiries: list[_Expiry], which: NDArray[np.intp], quoted: NDArray[np.intp]) -> dict[str, Any]:
    """The listing of each session's chosen expiry as one padded matrix of its listed strikes."""
    blocks: list[tuple[Floats, NDArray[np.bool_], NDArray[np.bool_]]] = []
    years = np.empty(quoted.size)
    for row, (choice, session) in enumerate(zip(which, quoted, strict=True)):
        expiry = expiries[choice]
        at = int(np.searchsorted(expiry.sessions, session))
        calls, puts = expiry.calls[at], expiry.puts[at]
        on = calls | puts
        blocks.append((expiry.strike[on], calls[on], puts[on]))
        years[row] = expiry.years[at]
    width = max(block[0].size for block in blocks)
    strike = np.full((quoted.size, width), np.nan)
    calls, puts = np.zeros((2, quoted.size, width), dtype=bool)
    for row, (strikes, has_call, has_put) in enumerate(blocks):
        strike[row, : strikes.size], calls[row, : strikes.size], puts[row, : strikes.size] = strikes, has_call, has_put
    return {"years": years, "strike": strike, "calls": calls, "puts": puts}


def _rows(inputs: ChainInputs, expiries: list[_Expiry], quoted: NDArray[np.intp], levels: Levels, model: ChainModel) -> pa.Table:
    """Every listed contract of every quoted session, ordered by session, expiry, right and strike."""
    position = np.full(len(inputs.close), -1)
    position[quoted] = np.arange(quoted.size)
    parts: list[pd.DataFrame] = []
    for number, expiry in enumerate(expiries):
        usable = position[expiry.sessions] >= 0
        for is_call, flags in ((True, expiry.calls), (False, expiry.puts)):
            row, column = np.nonzero(flags & usable[:, None])
            parts.append(
                pd.DataFrame(
                    {
                        "at": expiry.sessions[row],
                        "expiry": number,
                        "call": is_call,
                        "strike": expiry.strike[column],
                        "years": expiry.years[row],
                    }
                )
            )
    table = pd.concat(parts, ignore_index=True).sort_values(["at", "expiry", "call", "strike"], kind="stable", ignore_index=True)
    return _to_arrow(inputs, expiries, table, levels.volatility[position[table["at"].to_numpy()]], model)


def _to_arrow(inputs: ChainInputs, expiries: list[_Expiry], table: pd.DataFrame, level: Floats, model: ChainModel) -> pa.Table:
    at, call, strike, years = (table[name].to_numpy() for name in ("at", "call", "strike", "years"))
    spot = inputs.close.to_numpy()[at]
    rate, carry = model.rate_ann, model.dividend_yield_ann
    volatility = model_volatility(level, np.log(strike / spot) - (rate - carry) * years, years, model)
    values = greeks(call, spot, strike, years, rate, carry, volatility)
    bid, ask = quote(call, spot, strike, values.price, model)
    days = pd.DatetimeIndex(inputs.close.index)
    quote_time = (session_closes(days) + QUOTE_DELAY).tz_convert("UTC")
    ends = pd.DatetimeIndex([expiry.day for expiry in expiries])
    tags = np.array([f"{inputs.underlying}{day:%y%m%d}" for day in ends])[table["expiry"].to_numpy()]
    mills = np.char.zfill(np.round(strike * 1000).astype(np.int64).astype(str), 8)
    right = np.where(call, "C", "P")
    constant = {
        "source": "modelled",
        "underlying": inputs.underlying,
        "multiplier": 100.0,
        "style": "european",
        "settlement": "pm_cash",
        "data_kind": "modelled",
    }
    columns: dict[str, Any] = {
        "occ_symbol": np.char.add(np.char.add(tags, right), mills),
        "quote_time": quote_time[at],
        "session": days[at].date,
        "expiry": ends[table["expiry"].to_numpy()].date,
        "strike": strike,
        "right": right,
        "bid": bid,
        "ask": ask,
        "underlying_price": spot,
        "implied_volatility": volatility,
        "delta": values.delta,
        "gamma": values.gamma,
        "vega": values.vega,
        "theta": values.theta,
        "rho": values.rho,
        "available_at": inputs.known_at[at],
    }
    # A model has no sizes, last trades, volume or open interest: those columns stay empty.
    empty = dict.fromkeys(("bid_size", "ask_size", "last", "volume", "open_interest", "greeks_time"))
    return table_of("option_quotes", {**columns, **constant, **empty}, len(table))
