"""What an options run reads from a lake snapshot: the chain, the underlying's bars and its risk level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from backtests.options.chain import CHAIN_COLUMNS, ChainBook
from backtests.strategy import Strategy
from config.errors import InputError, UnknownNameError, did_you_mean
from config.progress import SILENT, Progress

if TYPE_CHECKING:
    from lake import Snapshot

__all__ = ["OptionInputs", "read_option_inputs"]

RISK_LEVEL = "risk_level"


@dataclass(frozen=True, kw_only=True)
class OptionInputs:
    """Everything `run_options` takes besides the specification.

    Parameters
    ----------
    chain : ChainBook
    bars : DataFrame of shape (n_sessions, 2)
        `open` and `close` of the underlying; index `session`.
    risk_level : Series of shape (n_sessions,)
        The feature `risk_level`, 0 (calm) to 4; NaN while it warms up.
    snapshot_id : str
    source : str
        Whose quotes the chain is.
    ingest_ids : tuple of str
        The ingests of bars, macro series and quotes.
    """

    chain: ChainBook
    bars: pd.DataFrame
    risk_level: pd.Series
    snapshot_id: str
    source: str
    ingest_ids: tuple[str, ...]


def read_option_inputs(
    snapshot: Snapshot,
    symbol: str,
    *,
    start: date | None = None,
    end: date | None = None,
    as_of: datetime | None = None,
    sources: Sequence[str] = (),
    progress: Progress = SILENT,
) -> OptionInputs:
    """Read one underlying.

    Parameters
    ----------
    symbol : str
        The underlying.
    start, end : date, optional
        First and last session to run; by default the first and the last that have a chain. The risk level is computed from
        all earlier bars too.
    as_of : datetime, optional
        Read quotes and bars as known at this moment.
    sources : sequence of str
        Sources of quotes in order of preference, where several hold the underlying; one is taken.

    Raises
    ------
    UnknownNameError
        The snapshot has no option quotes on the symbol, or none of its bars.
    InputError
        No session of the underlying in the window.
    """
    from backtests.views import load_view

    rows = _read_chain(snapshot, symbol, start, end, as_of)
    held = sorted(set(rows["source"].to_pylist()))
    source = next((name for name in sources if name in held), held[0])
    rows = rows.filter(pc.equal(rows["source"], source))
    chain = ChainBook.from_rows(rows)
    first = pd.Timestamp(start) if start is not None else min(chain.slices)
    last = pd.Timestamp(end) if end is not None else max(chain.slices)
    # load_view reads only what a strategy declares: its features and its macro series.
    regime = cast("Strategy", SimpleNamespace(features=(RISK_LEVEL,), macro=()))
    view = load_view(snapshot, (symbol,), (regime,), end=last.date(), as_of=as_of, progress=progress)
    bars = pd.DataFrame({"open": view.panel.open[symbol], "close": view.panel.close[symbol]}).loc[first:last]
    if bars.empty:
        raise InputError(f"{symbol} has no session from {first:%Y-%m-%d} to {last:%Y-%m-%d}", remedy="ask for sessions it covers")
    quotes = {str(one) for one in rows["ingest_id"].unique().to_pylist()}
    return OptionInputs(
        chain=chain,
        bars=bars,
        risk_level=view.features[RISK_LEVEL][symbol].loc[first:last],
        snapshot_id=snapshot.id,
        source=source,
        ingest_ids=tuple(sorted({*view.panel.ingest_ids, *quotes})),
    )


def _read_chain(snapshot: Snapshot, symbol: str, start: date | None, end: date | None, as_of: datetime | None) -> pa.Table:
    columns = [*CHAIN_COLUMNS, "source", "ingest_id"]
    rows = snapshot.read("option_quotes", where={"underlying": symbol}, start=start, end=end, as_of=as_of, columns=columns)
    if rows.num_rows:
        return rows
    known = sorted(set(snapshot.read("option_quotes", columns=["underlying"])["underlying"].to_pylist()))
    raise UnknownNameError(
        f"the lake snapshot {snapshot.id} has no option quotes on {symbol} in the sessions asked for",
        remedy=f"run quant ingest options --symbols {symbol} first; {did_you_mean(symbol, known)}",
    )
