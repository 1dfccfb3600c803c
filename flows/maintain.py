"""Keep the lake small and quick: one file a partition, nothing that nobody needs, and what each table takes.

1. `repair` (lake.repair), when asked for: take aside what a power cut left unfinished, so that tables open again.
2. `compact` (lake.maintenance) every table; the published snapshots of that content read the new files (`_compacted`).
3. With a retention: drop older published snapshots that nothing refers to: no run of the tracking store, no trial of the ledger,
   no plan of an account (`referenced_snapshots`), not the newest (`drop_snapshots`).
4. `sweep` (lake.vacuum): delete what no version that is still needed holds, and files whose writer died, once they are old enough.
5. `survey` says what is left, by table.

A dry run unless told to apply. Writers and readers go on beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from config.artifacts import show_table
from config.clock import Clock, SystemClock
from config.errors import InputError, LockHeldError
from config.orchestration import flow
from config.progress import SILENT, Progress
from config.settings import Settings, load_settings
from lake import Lake, open_lake
from lake.maintenance import Compaction, compact
from lake.repair import Repair, repair
from lake.snapshot import point_at
from lake.vacuum import SAFE_AGE, SHORTEST_SAFE_AGE, Sizes, drop_snapshots, survey, sweep

__all__ = ["MaintenanceReport", "maintain_flow", "referenced_snapshots"]

TIMEOUT_SECONDS = 4 * 3600.0


@dataclass(frozen=True, kw_only=True)
class MaintenanceReport:
    """What was done, or in a dry run what would be.

    Parameters
    ----------
    applied : bool
    kept : int
        Published snapshots that remain.
    repairs : tuple of Repair
    compactions : tuple of Compaction
        One a table that holds files.
    moved : tuple of str
        Published snapshots that read other files now; their ids and rows are the same.
    dropped : tuple of str
        Published snapshots that are gone.
    removed_bytes : int
    sizes : tuple of Sizes
        Every table, after it.
    notes : tuple of str
        What was left for the next time, and why.
    """

    applied: bool
    kept: int
    repairs: tuple[Repair, ...] = ()
    compactions: tuple[Compaction, ...] = ()
    moved: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    removed_bytes: int = 0
    sizes: tuple[Sizes, ...] = ()
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; the names of removed files are left out."""
        tables = []
        shrunk = {one.table: one for one in self.compactions}
        for one in self.sizes:
            sizes = {key: value for key, value in asdict(one).items() if key != "removable"}
            before = shrunk.get(one.table)
            files = (before.files_before, before.files_after) if before else (one.live_files, one.live_files)
            tables.append({**sizes, "files_before": files[0], "files_after": files[1]})
        return {
            "applied": self.applied,
            "repairs": [asdict(one) for one in self.repairs],
            "moved": list(self.moved),
            "dropped": list(self.dropped),
            "kept": self.kept,
            "removed_bytes": self.removed_bytes,
            "tables": tables,
            "notes": list(self.notes),
        }


@flow(
    name="maintain-lake",
    description="Compact the lake's tables, delete what nothing needs any more, say what each table takes",
    timeout_seconds=TIMEOUT_SECONDS,
    run_name=lambda given: "maintain the lake" if given["apply"] else "look what maintaining the lake would do",
    withheld=("settings", "progress", "clock"),
)
def maintain_flow(
    apply: bool = False,
    *,
    keep_days: int | None = None,
    safe_age_hours: float = SAFE_AGE.total_seconds() / 3600,
    repair_first: bool = False,
    settings: Settings | None = None,
    progress: Progress = SILENT,
    clock: Clock | None = None,
) -> MaintenanceReport:
    """Maintain the lake.

    Parameters
    ----------
    apply : bool
        False (the default) changes nothing.
    keep_days : int, optional
        Published snapshots older than this that no run, no trial and no plan refers to are dropped. Left out, every one is kept.
    safe_age_hours : float
        Files are deleted only when nothing has needed them for so long; at least 1.
    repair_first : bool
        Take aside what a power cut left unfinished.
    clock : Clock, optional
        Tells the present moment; the machine's own by default.

    Raises
    ------
    InputError
        A negative retention, or a safe age below an hour.
    IntegrityError
        A log entry or a snapshot is damaged; nothing was deleted.
    ServiceError
        The tracking store does not answer, so which snapshots are referred to is not known; nothing was dropped.
    """
    settings = load_settings() if settings is None else settings
    clock = SystemClock() if clock is None else clock
    if keep_days is not None and keep_days < 0:
        raise InputError(f"keep_days is {keep_days}", remedy="give how many days of snapshots to keep, 0 or more")
    safe_age = timedelta(hours=safe_age_hours)
    lake = open_lake(settings)
    if safe_age < SHORTEST_SAFE_AGE:
        raise InputError(f"a safe age of {safe_age_hours:g} hours would take running writers' files", remedy="give at least 1")
    repairs = repair(lake, apply=apply) if repair_first else ()
    if repairs and not apply:
        waits = "the tables are looked at once that is taken aside: give --apply"
        return MaintenanceReport(applied=False, repairs=repairs, kept=len(lake.snapshots()), notes=(waits,))
    compactions, notes = _compacted(lake, clock, apply, progress)
    moved = _moved(lake) if apply else ()
    dropped: tuple[str, ...] = ()
    if keep_days is not None:
        progress.stage("look which snapshots are referred to")
        before = clock.now() - timedelta(days=keep_days)
        dropped = drop_snapshots(lake, keep=referenced_snapshots(settings), before=before, apply=apply)
    progress.stage("delete what nothing needs")
    found = survey(lake, now=clock.now(), safe_age=safe_age, without=dropped)
    removed = sweep(lake, found) if apply else sum(one.removable_bytes for one in found)
    sizes = survey(lake, now=clock.now(), safe_age=safe_age) if apply else found
    report = MaintenanceReport(
        applied=apply,
        repairs=repairs,
        compactions=compactions,
        moved=moved,
        dropped=dropped,
        kept=len(lake.snapshots()) - (0 if apply else len(dropped)),
        removed_bytes=removed,
        sizes=tuple(sizes),
        notes=notes,
    )
    show_table("lake-sizes", _rows(report), "What each table of the lake takes, in bytes.")
    return report


def _compacted(lake: Lake, clock: Clock, apply: bool, progress: Progress) -> tuple[tuple[Compaction, ...], tuple[str, ...]]:
    """Every table in one file a partition; a table whose writers are too quick is left for the next time."""
    names = sorted(lake.tables())
    progress.stage("compact", len(names))
    done, notes = [], []
    for name in names:
        try:
            done.append(compact(lake, name, at=clock.now(), apply=apply))
        except LockHeldError as problem:
            notes.append(problem.message)
        progress.advance()
    return tuple(done), tuple(notes)


def _moved(lake: Lake) -> tuple[str, ...]:
    """The published snapshots of the newest content read the files that it now lies in."""
    return point_at(lake.root, lake.tables())


def referenced_snapshots(settings: Settings) -> frozenset[str]:
    """The snapshots that a run of the tracking store (deleted ones too), a trial of the ledger or a plan of an account names.

    Raises
    ------
    ServiceError
        The tracking store does not answer.
    StorageError
        The ledger cannot be read.
    """
    from execution.journal import Journal
    from tracking.ledger import TrialLedger
    from tracking.store import mlflow_errors, open_store

    named = set(TrialLedger(settings).snapshots())
    for journal in sorted((settings.home_path / "execution").glob("*/journal.db")):
        with Journal.read(journal.parent) as opened:
            named |= {plan.snapshot_id for plan in opened.plans()}
    store = open_store(settings)
    with mlflow_errors(store.uri):
        from mlflow.entities import ViewType

        experiments = _pages(lambda token: store.client.search_experiments(ViewType.ALL, max_results=1000, page_token=token))
        ids = [one.experiment_id for one in experiments]
        if not ids:
            return frozenset(named - {""})
        for run in _pages(lambda token: store.client.search_runs(ids, "", ViewType.ALL, max_results=1000, page_token=token)):
            named.add(run.data.tags.get("snapshot_id", ""))
    return frozenset(named - {""})


def _pages(ask: Any) -> Sequence[Any]:
    found: list[Any] = []
    token: str | None = None
    while True:
        page = ask(token)
        found += page
        token = page.token
        if not token:
            return found


def _rows(report: MaintenanceReport) -> list[dict[str, Any]]:
    return [
        {
            "table": one.table,
            "live": one.live,
            "snapshots": one.kept,
            "old": one.old,
            "orphans": one.orphans,
            "files": one.live_files,
        }
        for one in report.sizes
    ]
