"""Computes a feature set from the lake and stores it there.

1. `build_features_flow` reads the newest snapshot and names the build (`_plan`): the same inputs give the same name.
2. A build that was finished before on the same bars, splits and macro values is used again (`_finished`).
3. Each block of symbols is a step (`_build_block`): it reads its panel, computes, and writes its rows.
4. The new state is published and the build recorded (`_record`), so that a build killed on the way is done again.

Values do not depend on `start`, `end` or the symbols beside: each symbol is computed over its whole history.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from config.artifacts import show_table
from config.clock import Clock, SystemClock
from config.errors import DataError
from config.hashing import canonical_json, digest, short
from config.orchestration import flow, some_of, step
from config.progress import SILENT, Progress
from config.settings import Settings, load_settings
from config.tables import feature_table
from features.catalogue import FeatureSet
from features.catalogue import feature_set as named_set
from features.engine import compute
from features.macro import parse_series
from features.point_in_time import PanelRequest, held_macro, read_panel
from features.store import PREFIX, feature_rows
from lake import Lake, Snapshot, open_lake
from lake.files import write_whole

__all__ = ["FeatureBuild", "build_features_flow"]

BLOCK_SIZE = 64
_INPUT_TABLES = ("equity_bars", "corporate_actions", "macro_observations")


@dataclass(frozen=True, kw_only=True)
class FeatureBuild:
    """What a build left in the lake.

    Parameters
    ----------
    set_version : str
        Names the table; `load_features` takes it.
    features : tuple of str
    rows : int
        (symbol, session) pairs.
    snapshot_id : str
        A published snapshot that holds the features.
    panel_snapshot_id : str
        The snapshot they were computed from.
    coverage : mapping of str to float
        By feature, the share of rows that have a value.
    absent_macro : tuple of str
        Macro series that the lake does not hold: features of them are NaN.
    ingest_id : str
        On every row: the digest of all that settles the values.
    reused : bool
        Nothing was computed, because nothing had changed.
    """

    set_version: str
    features: tuple[str, ...]
    rows: int
    snapshot_id: str
    panel_snapshot_id: str
    coverage: Mapping[str, float]
    absent_macro: tuple[str, ...]
    ingest_id: str
    reused: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            **asdict(self),
            "features": list(self.features),
            "absent_macro": list(self.absent_macro),
            "coverage": dict(self.coverage),
        }


@dataclass(frozen=True, kw_only=True)
class _Plan:
    chosen: FeatureSet
    set_version: str
    request: PanelRequest
    start: date | None
    end: date | None
    absent_macro: tuple[str, ...]
    snapshot_id: str
    ingest_id: str


@dataclass(frozen=True, kw_only=True)
class _Block:
    rows: int
    values: dict[str, int]


@flow(
    name="build-features",
    description="Compute a feature set from the newest snapshot and store it",
    run_name=lambda given: f"{some_of(given['feature_set'])} features of {some_of(given['symbols'])}",
    withheld=("settings", "clock", "progress"),
)
def build_features_flow(
    symbols: str | Sequence[str],
    *,
    feature_set: str | Sequence[str] = "core",
    start: date | None = None,
    end: date | None = None,
    as_of: datetime | None = None,
    source: str | Mapping[str, str] | None = None,
    macro_source: str | Mapping[str, str] | None = None,
    settings: Settings | None = None,
    clock: Clock | None = None,
    block_size: int = BLOCK_SIZE,
    progress: Progress | None = None,
) -> FeatureBuild:
    """Build features for symbols and publish them.

    Parameters
    ----------
    symbols : str or sequence of str
    feature_set : str or sequence of str
        A named set, or features by name.
    start, end : date, optional
        Which sessions are stored; each symbol's whole history is read in any case.
    as_of : datetime, optional
        Compute from what was known at this aware moment. Such a build, like one with a chosen source, has a set version of its
        own, so that two views of the past are never versions of one another.
    source, macro_source
        As in `load_panel`.
    clock : Clock, optional
        Dates the rows (`recorded_at`); the machine's own by default.
    block_size : int
        Symbols a step.

    Raises
    ------
    UnknownNameError
        A symbol, a feature or a feature set does not exist; or nothing was ingested yet.
    InputError
        Two sources hold a symbol and none was chosen.
    DataError
        No session lies in the window.
    """
    symbols = (symbols,) if isinstance(symbols, str) else tuple(symbols)
    settings, progress = settings or load_settings(), progress or SILENT
    lake = open_lake(settings)
    snapshot = lake.snapshot()
    chosen = named_set(feature_set)
    plan = _plan(snapshot, chosen, symbols, start, end, as_of, source, macro_source, settings)
    record = settings.home_path / "features" / plan.set_version / f"{plan.ingest_id.partition(':')[2]}.json"
    if plan.absent_macro:
        progress.note(f"the lake holds no {', '.join(plan.absent_macro)}: features of them are empty")
    finished = _finished(record, lake, plan)
    if finished is not None:
        progress.note(f"features {plan.set_version} re-used: the bars, splits and macro values are unchanged")
        return _shown(finished)
    recorded_at = (clock or SystemClock()).now()
    blocks = [symbols[first : first + block_size] for first in range(0, len(symbols), block_size)]
    progress.stage("features", len(blocks))
    done: list[_Block] = []
    for block in blocks:
        done.append(_build_block(lake, plan, block, recorded_at))
        progress.advance()
    return _shown(_record(record, plan, done, lake.publish()))


def _shown(build: FeatureBuild) -> FeatureBuild:
    """Leave the build as a table on the flow run's page."""
    act = "Used again: the bars, splits and macro values are unchanged" if build.reused else "Computed"
    lacks = f"\n\nThe lake holds no {', '.join(build.absent_macro)}: features of them are empty" if build.absent_macro else ""
    rows = [{"feature": name, "rows with a value": f"{build.coverage[name]:.1%}"} for name in build.features]
    show_table(
        "build-features",
        rows,
        f"**{build.set_version}**: {len(build.features)} features, {build.rows:,} rows. {act}.{lacks}\n\n"
        f"snapshot `{build.snapshot_id}`, computed from `{build.panel_snapshot_id}`",
    )
    return build


@step(name="build-feature-block", retries=2, run_name=lambda given: f"compute {some_of(given['symbols'])}")
def _build_block(lake: Lake, plan: _Plan, symbols: tuple[str, ...], recorded_at: datetime) -> _Block:
    """Read the block's panel, compute, cut to the window, write."""
    panel, known_at = read_panel(lake.snapshot(plan.snapshot_id), replace(plan.request, symbols=symbols))
    values = compute(panel, plan.chosen.names)
    window = slice(None if plan.start is None else pd.Timestamp(plan.start), None if plan.end is None else pd.Timestamp(plan.end))
    known_at = known_at.loc[window]
    values = {name: frame.loc[window] for name, frame in values.items()}
    spec = feature_table(plan.set_version, plan.chosen.names)
    rows = feature_rows(values, known_at, spec, panel_snapshot=plan.snapshot_id, ingest_id=plan.ingest_id)
    if rows.num_rows:
        lake.write(spec, rows, recorded_at=recorded_at)
    return _Block(rows=rows.num_rows, values={name: rows.num_rows - rows[name].null_count for name in plan.chosen.names})


def _plan(
    snapshot: Snapshot,
    chosen: FeatureSet,
    symbols: tuple[str, ...],
    start: date | None,
    end: date | None,
    as_of: datetime | None,
    source: str | Mapping[str, str] | None,
    macro_source: str | Mapping[str, str] | None,
    settings: Settings,
) -> _Plan:
    macro = held_macro(snapshot, chosen.macro, as_of=as_of)
    request = PanelRequest(
        symbols=symbols, as_of=as_of, macro=macro, source=source, macro_source=macro_source, calendar=settings.data.calendar
    )
    view = {"as_of": as_of, "source": source, "macro_source": macro_source}
    special = {name: value for name, value in view.items() if value is not None}
    version = f"{chosen.version}-{short(digest(special), 8)}" if special else chosen.version
    inputs = {
        "set": chosen.version,
        "symbols": list(symbols),
        "start": start,
        "end": end,
        "calendar": request.calendar,
        **view,
        "tables": {name: snapshot.table_hash(name) for name in _INPUT_TABLES if name in snapshot.tables},
    }
    return _Plan(
        chosen=chosen,
        set_version=version,
        request=request,
        start=start,
        end=end,
        absent_macro=tuple(sorted({parse_series(name).series for name in set(chosen.macro) - set(macro)})),
        snapshot_id=snapshot.id,
        ingest_id=f"features:{short(digest(inputs), 32)}",
    )


def _finished(record: Path, lake: Lake, plan: _Plan) -> FeatureBuild | None:
    """The recorded build of exactly these inputs, if its table is still in the lake's newest snapshot."""
    if not record.exists():
        return None
    try:
        content: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
        build = FeatureBuild(**{**content, "features": tuple(content["features"]), "absent_macro": tuple(content["absent_macro"])})
    except (ValueError, KeyError, TypeError):
        return None  # a damaged note of what was done costs no more than doing it again
    newest, table = lake.publish(), f"{PREFIX}{build.set_version}"
    if build.ingest_id != plan.ingest_id or table not in newest.tables:
        return None
    where = {"symbol": list(plan.request.symbols)}
    if newest.read(table, where=where, start=plan.start, end=plan.end, columns=["symbol"]).num_rows < build.rows:
        return None  # another lake stands where the recorded one stood
    return replace(build, snapshot_id=newest.id, reused=True)


def _record(record: Path, plan: _Plan, blocks: list[_Block], published: Snapshot) -> FeatureBuild:
    rows = sum(block.rows for block in blocks)
    if rows == 0:
        raise DataError(
            f"no session of {', '.join(plan.request.symbols)} lies between {plan.start} and {plan.end}", remedy="widen the window"
        )
    build = FeatureBuild(
        set_version=plan.set_version,
        features=plan.chosen.names,
        rows=rows,
        snapshot_id=published.id,
        panel_snapshot_id=plan.snapshot_id,
        coverage={name: sum(block.values[name] for block in blocks) / rows for name in plan.chosen.names},
        absent_macro=plan.absent_macro,
        ingest_id=plan.ingest_id,
    )
    write_whole(record, canonical_json(build.as_dict()).encode())
    return build
