"""One Delta table: its place, its versions, what each commit says about the content, and the syncing that delta-rs leaves out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa

from config.errors import IntegrityError
from config.hashing import canonical_json
from config.tables import CLOCKS, TABLES, TableSpec
from lake.chain import EMPTY
from lake.failures import first_line, refused_by_storage, storage_errors
from lake.files import sync
from lake.place import Place, delta_at, holds_table, prepare, read, tables_in

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = [
    "PHYSICAL",
    "TableVersion",
    "create_table",
    "log_path",
    "open_table",
    "spec_of",
    "sync_commit",
    "table_names",
    "version_state",
]

# Kept in the files, never returned: which version of its key a row is (0 first), and the Delta version that brought it.
PHYSICAL: tuple[pa.Field, ...] = (
    pa.field("revision", pa.int32(), nullable=False),
    pa.field("written_in", pa.int64(), nullable=False),
)
CHAIN, BATCH, ROWS, REVISED = "quantrail.chain", "quantrail.batch", "quantrail.rows", "quantrail.revised"
# Versions that a published snapshot names must not vanish because time passes (delta-rs drops them after 30 days).
# To open a table its log is read since the last checkpoint: every 20 commits instead of 100, so that it stays short.
_CONFIGURATION = {
    "delta.logRetentionDuration": "interval 36500 days",
    "delta.enableExpiredLogCleanup": "false",
    "delta.checkpointInterval": "20",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class TableVersion:
    """One exact state of one table.

    Parameters
    ----------
    version : int
        Delta version.
    table_id : str
        Delta's own id of the table: another one means the folder was made anew.
    chain : str
        The content's number (`lake.chain`), 64 hex digits.
    rows, revised : int
        Rows stored, and how many of them are revisions of a key stored before.
    """

    version: int
    table_id: str
    chain: str
    rows: int
    revised: int


def open_table(path: Place, version: int | None = None) -> DeltaTable | None:
    """Open a table at its newest version, or at the one given; None where nothing was ever written.

    Raises
    ------
    StorageError
        It cannot be read.
    IntegrityError
        A log entry is gone or damaged.
    """
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError, TableNotFoundError

    if not holds_table(path):
        return None
    where, options = delta_at(path)
    with storage_errors(f"open the table {path.name}", path):
        try:
            return DeltaTable(where, version=version, storage_options=options)
        except TableNotFoundError:
            return None
        except DeltaError as problem:
            if refused_by_storage(problem):
                raise
            raise IntegrityError(
                f"the log of the table in {path} is damaged: {first_line(problem)}",
                remedy="after a power cut: quant data maintain --repair; otherwise restore the folder from a backup, "
                "or ingest into a new home",
            ) from problem


def create_table(path: Place, spec: TableSpec, schema: pa.Schema) -> DeltaTable:
    """Make the table with its first, empty version; when another process was quicker, open that one."""
    from deltalake import CommitProperties, DeltaTable
    from deltalake.exceptions import CommitFailedError, DeltaError

    described = {
        "name": spec.name,
        "key": spec.key,
        "event_time": spec.event_time,
        "partition_by": spec.partition_by,
        "quotes_vintages": spec.quotes_vintages,
        "provenance": spec.provenance,
        "doc": spec.doc,
    }
    where, options = delta_at(path)
    with storage_errors(f"create the table {spec.name}", path):
        prepare(path)
        try:
            table = DeltaTable.create(
                where,
                schema,
                storage_options=options,
                mode="error",
                partition_by=[name for name, _ in spec.partition_by],
                configuration=_CONFIGURATION,
                description=canonical_json(described),
                commit_properties=CommitProperties(custom_metadata={CHAIN: EMPTY, ROWS: "0", REVISED: "0"}, max_commit_retries=0),
            )
        except (CommitFailedError, DeltaError):
            made = open_table(path)
            if made is None:
                raise
            return made
        sync_commit(path, 0)
    return table


def spec_of(name: str, table: DeltaTable) -> TableSpec:
    """The specification of a table: the fixed one, else the one written into it at its creation."""
    if name in TABLES:
        return TABLES[name]
    described = json.loads(table.metadata().description or "{}")
    hidden = {field.name for field in (*PHYSICAL, *CLOCKS)} | {column for column, _ in described["partition_by"]}
    return TableSpec(
        name=described["name"],
        key=tuple(described["key"]),
        columns=tuple(field for field in pa.schema(table.schema()) if field.name not in hidden),
        event_time=described["event_time"],
        partition_by=tuple((column, expression) for column, expression in described["partition_by"]),
        quotes_vintages=described["quotes_vintages"],
        provenance=tuple(described["provenance"]),
        doc=described["doc"],
    )


def table_names(root: Place) -> list[str]:
    """Every table that has a folder in the lake, sorted; feature tables as ``features/<version>``."""
    return tables_in(root)


def log_path(path: Place, version: int) -> Place:
    """The log entry of one version."""
    return path / "_delta_log" / f"{version:020d}.json"


def version_state(path: Place, table: DeltaTable) -> TableVersion:
    """What the newest commit up to the opened version says about the content.

    Commits that bring no rows (another tool's compaction, an entry cut off by a power failure before it was acknowledged)
    say nothing: the one before them speaks.

    Raises
    ------
    IntegrityError
        A commit changed rows and does not say how, so it was not made by `lake.write`; or its log entry is gone.
    """
    for version in range(table.version(), -1, -1):
        said: dict[str, Any] = {}
        changed = False
        for action in _log_actions(path, version):
            said |= action.get("commitInfo", {})
            changed |= any(action.get(kind, {}).get("dataChange", False) for kind in ("add", "remove"))
        if CHAIN in said:
            return TableVersion(
                version=table.version(),
                table_id=str(table.metadata().id),
                chain=said[CHAIN],
                rows=int(said[ROWS]),
                revised=int(said[REVISED]),
            )
        if changed:
            raise IntegrityError(
                f"version {version} of the table in {path} was not written by quantrail: its content cannot be vouched for",
                remedy="write through lake.write only; restore the folder from a backup, or ingest into a new home",
            )
    raise IntegrityError(
        f"the log of the table in {path} says nothing about its content", remedy="restore the folder from a backup"
    )


def _log_actions(path: Place, version: int) -> Iterator[dict[str, Any]]:
    entry = log_path(path, version)
    data = read(entry)
    if data is None:
        raise IntegrityError(f"the log entry {entry} is gone", remedy="restore the folder from a backup")
    for line in data.splitlines():
        try:
            yield json.loads(line)
        except ValueError as problem:  # no JSON, or no UTF-8
            raise IntegrityError(
                f"the log entry {entry} is damaged: {problem}", remedy="restore the folder from a backup"
            ) from problem


def sync_commit(path: Place, version: int) -> None:
    """Force a commit to the disk: its new files, their folders, its log entry, a checkpoint made with it, the log's folder.

    An object store has acknowledged each of them; there is nothing left to do.
    """
    if not isinstance(path, Path):
        return
    folders: set[Path] = set()
    for action in _log_actions(path, version):
        if "add" in action:
            file = path / unquote(action["add"]["path"])
            if file.exists():  # maintenance may have removed a file that no later version uses
                sync(file)
            folders |= {file.parent, path}
    log = path / "_delta_log"
    for entry in (log / f"{version:020d}.json", log / "_last_checkpoint", *log.glob(f"{version:020d}.checkpoint*")):
        if entry.exists():
            sync(entry)
    for folder in (*folders, log, path):
        sync(folder)
