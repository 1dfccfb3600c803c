"""Walks the chain from an order to the bytes it came from: each link was stored where it was made.

order -> plan -> strategy version -> run -> feature set -> lake snapshot -> ingest -> source

`explain` finds what an id names (`_find`) and follows the links from there (`_order`, `_plan`, `_run`, `_snapshot`, `_ingest`).
Every hash is computed from, or checked against, what is stored now; a link that does not hold is an `IntegrityError`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from config.errors import IntegrityError, UnknownNameError
from config.hashing import digest
from config.settings import Settings
from execution.journal import Journal
from lake import Lake, Snapshot, open_lake

if TYPE_CHECKING:
    from execution.journal import JournalOrder
    from execution.plan import Plan
    from tracking.runs import RunRecord

__all__ = ["Link", "explain"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """One link of a chain.

    Parameters
    ----------
    kind : {"order", "plan", "strategy_version", "run", "feature_set", "snapshot", "ingest", "source"}
    id : str
    hash : str
        SHA-256 of its content, 64 hex digits.
    text : str
        What it is, for people.
    """

    kind: str
    id: str
    hash: str
    text: str

    def as_dict(self) -> dict[str, str]:
        """Plain values, for JSON."""
        return asdict(self)


def explain(settings: Settings, identifier: str) -> tuple[Link, ...]:
    """The chain from an order, plan, run, snapshot or ingest to the sources.

    Parameters
    ----------
    identifier : str
        An order's client id, a plan's, an MLflow run's, a snapshot's or an ingest's id.

    Raises
    ------
    UnknownNameError
        Nothing here has that id.
    IntegrityError
        A link does not hold: something was changed since it was stored.
    """
    found = tuple(_find(settings, identifier))
    if not found:
        raise UnknownNameError(
            f"nothing here is called {identifier!r}: no order, plan, run, snapshot or ingest",
            remedy="take an id from `quant demo --json`, or check QUANT_HOME",
        )
    return found


def _find(settings: Settings, identifier: str) -> Iterator[Link]:
    for folder in sorted((settings.home_path / "execution").glob("*/")):
        if not (folder / "journal.db").is_file():
            continue
        with Journal.read(folder) as journal:
            journal.verify()
            order = journal.order(identifier)
            if order is not None:
                plan = journal.plan(order.plan_id)
                if plan is None:
                    raise IntegrityError(f"order {identifier} belongs to plan {order.plan_id}, which is not in {folder}")
                yield _order(order)
                yield from _plan(settings, plan)
                return
            stored = journal.plan(identifier)
            if stored is not None:
                yield from _plan(settings, stored)
                return
    lake = open_lake(settings)
    if identifier in lake.snapshots():
        yield from _snapshot(lake, lake.snapshot(identifier), None)
        return
    if lake.read_latest("ingest_runs", where={"ingest_id": identifier}).num_rows:
        yield from _ingest(lake, [identifier])
        return
    run = _run_record(settings, identifier)
    if run is not None:
        yield from _run(settings, run)


def _order(order: JournalOrder) -> Link:
    request = order.request
    cut = f" ({order.reason})" if order.reason else ""
    content = asdict(request) | {"quantity": str(request.quantity), "plan_id": order.plan_id}
    return Link(
        kind="order",
        id=request.client_order_id,
        hash=digest(content),
        text=f"{request.side} {request.quantity:f} {request.symbol}; filled {order.filled:f}{cut}",
    )


def _plan(settings: Settings, plan: Plan) -> Iterator[Link]:
    yield Link(
        kind="plan",
        id=plan.plan_id,
        hash=plan.digest,
        text=f"{plan.strategy} for account {plan.account_id}, decided at the close of {plan.session}",
    )
    if not plan.run_id:
        return
    run = _run_record(settings, plan.run_id)
    if run is None:
        raise IntegrityError(f"plan {plan.plan_id} names run {plan.run_id}, which the tracking store does not have")
    spec = run.document("spec")
    if digest(spec) != plan.version:
        raise IntegrityError(f"plan {plan.plan_id} was made by version {plan.version[:12]}, run {run.run_id} holds another one")
    yield Link(kind="strategy_version", id=plan.version[:16], hash=plan.version, text=_spec_text(spec))
    yield from _run(settings, run)


def _spec_text(spec: dict[str, Any]) -> str:
    parameters = ", ".join(f"{key}={value}" for key, value in spec["params"].items())
    return f"{spec['name']}({parameters}) on {', '.join(spec['symbols'])}"


def _run_record(settings: Settings, run_id: str) -> RunRecord | None:
    from tracking.runs import read_run
    from tracking.store import open_store

    return read_run(open_store(settings), run_id)


def _run(settings: Settings, run: RunRecord) -> Iterator[Link]:
    for name in run.artefacts:
        run.path(name)  # checks the bytes
    yield Link(
        kind="run",
        id=run.run_id,
        hash=digest(dict(run.artefacts)),
        text=f"{run.tags.get('label', run.name)} on {run.tags.get('engine', '?')}, {run.tags.get('data_kind', '?')} data",
    )
    lake = open_lake(settings)
    snapshot = lake.snapshot(run.tags["snapshot_id"])
    built = run.tags.get("feature_set")
    if built:
        table = f"features/{built}"
        yield Link(
            kind="feature_set", id=built, hash=snapshot.table_hash(table), text="features, each known at its session's close"
        )
    ingests = [part for part in run.tags.get("ingest_ids", "").split(",") if part]
    yield from _snapshot(lake, snapshot, ingests)


def _snapshot(lake: Lake, snapshot: Snapshot, ingests: Sequence[str] | None) -> Iterator[Link]:
    tables = {name: at.chain for name, at in snapshot.tables.items()}
    yield Link(kind="snapshot", id=snapshot.id, hash=digest(tables), text=f"{len(tables)} tables at exact versions")
    if ingests is None:
        ingests = sorted({one for name in tables if not name.startswith("features/") for one in snapshot.ingest_ids(name)})
    yield from _ingest(lake, ingests)


def _ingest(lake: Lake, ingests: Sequence[str]) -> Iterator[Link]:
    """Each ingest, followed by the source it read, whose bytes are hashed again."""
    rows = lake.read_latest("ingest_runs", where={"ingest_id": list(ingests)}).to_pylist()
    first = {row["ingest_id"]: row for row in reversed(rows)}
    for name in ingests:
        if name not in first:
            raise IntegrityError(f"ingest {name} is not in the table ingest_runs")
        row = first[name]
        request = {key: row[key] for key in ("source", "dataset", "request", "response_sha256")}
        yield Link(kind="ingest", id=name, hash=digest(request), text=f"{row['dataset']} from {row['source']}: {row['request']}")
        lake.raw.get(row["response_sha256"])
        yield Link(
            kind="source",
            id=row["origin"],
            hash=row["response_sha256"],
            text=f"{row['response_bytes']} bytes, kept in {lake.root / 'raw'}",
        )
