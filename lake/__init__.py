"""Store rows with three clocks, read them as of a moment, name exact states."""

from lake.snapshot import Snapshot
from lake.store import Lake, open_lake
from lake.writer import WriteResult

__all__ = ["Lake", "Snapshot", "WriteResult", "open_lake"]
