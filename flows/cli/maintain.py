"""The verb `quant data maintain`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.cli.shell import JsonFlag, emit, progress_on_stderr, settings_from, table

__all__ = ["add_maintain"]


def add_maintain(group: typer.Typer) -> None:
    """Add the verb to a group."""
    group.command("maintain")(data_maintain)


def data_maintain(
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without this nothing is changed.")] = False,
    keep_days: Annotated[
        int | None,
        typer.Option(min=0, help="Drop published snapshots older than this that no run, trial or plan names. Default: keep all."),
    ] = None,
    safe_age_hours: Annotated[float, typer.Option(min=1.0, help="Delete files only when not needed for so long.")] = 24.0,
    repair: Annotated[bool, typer.Option("--repair", help="Take aside what a power cut left unfinished in a table's log.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Compact the lake's tables, delete what nothing needs, say what each table takes. A dry run without --apply."""
    from flows.maintain import maintain_flow

    with progress_on_stderr() as progress:
        report = maintain_flow(
            apply,
            keep_days=keep_days,
            safe_age_hours=safe_age_hours,
            repair_first=repair,
            settings=settings_from(),
            progress=progress,
        )
    document = report.as_dict()
    emit(as_json, document, lambda: _draw(document))


def _draw(document: dict[str, Any]) -> None:
    for one in document["repairs"]:
        where = f"moved to {one['moved_to']}" if one["moved_to"] else "would be taken aside"
        typer.echo(f"{one['table']}: {one['file']} {one['why']}: {where}")
    columns = ["table", "files before", "after", "live", "snapshots'", "old", "orphans", "deletable"]
    keys = ["table", "files_before", "files_after", "live", "kept", "old", "orphans", "removable_bytes"]
    rows = [[_shown(one[key], key) for key in keys] for one in document["tables"]]
    table("", columns, rows, right=tuple(columns[1:]))
    done = document["applied"]
    dropped = len(document["dropped"])
    typer.echo(
        f"{_bytes(document['removed_bytes'])} {'deleted' if done else 'to delete'}; {document['kept']} snapshots kept"
        + (f", {dropped} {'dropped' if done else 'to drop'}" if dropped else "")
    )
    for note in document["notes"]:
        typer.echo(note)
    if not done:
        typer.echo("a dry run: nothing was changed; give --apply to do it")


def _shown(value: Any, key: str) -> Any:
    return value if key in ("table", "files_before", "files_after") else _bytes(value)


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
