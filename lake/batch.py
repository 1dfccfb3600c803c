"""What a batch of rows must be before it is written: the table's columns, its types, its key, and its clocks."""

from __future__ import annotations

import pyarrow as pa

from config.errors import SchemaError, did_you_mean
from config.tables import TableSpec
from lake.order import ascending, key_numbers, repeats

__all__ = ["conform", "shape"]


def conform(rows: pa.Table, spec: TableSpec) -> pa.Table:
    """Return the batch in key order, with exactly the columns of `spec` and the clocks `available_at` and `ingest_id`.

    Types are changed only where nothing is lost (int64 to float64, nanoseconds that are whole microseconds, dictionary or
    large strings to strings). A naive time is refused rather than guessed.

    Raises
    ------
    SchemaError
        A column is missing, unknown, of another type, or NULL where it may not be; or a key comes twice.
    """
    table = shape(rows, spec)
    for field in table.schema:
        missing = table.column(field.name).null_count
        if missing and (field.name in spec.key or not field.nullable):
            role = "key" if field.name in spec.key else "column"
            raise SchemaError(
                f"table {spec.name}: {missing} of {table.num_rows} rows have NULL in the {role} {field.name}",
                remedy="leave such rows out, or send them through lake.quality.split, which refuses them one by one",
            )
    return _in_key_order(table, spec)


def shape(rows: pa.Table, spec: TableSpec) -> pa.Table:
    """Return the batch with the columns and types of `conform`, its values not looked at.

    Raises
    ------
    SchemaError
        A column is missing, unknown or of another type.
    """
    wanted = pa.schema([field for field in spec.schema if field.name != "recorded_at"])
    _check_names(rows.schema.names, wanted.names, spec)
    return pa.table([_cast(rows.column(field.name), field, spec) for field in wanted], schema=wanted)


def _check_names(found: list[str], wanted: list[str], spec: TableSpec) -> None:
    if len(set(found)) != len(found):
        twice = sorted({name for name in found if found.count(name) > 1})
        raise SchemaError(f"table {spec.name}: the batch has the column {', '.join(twice)} twice")
    missing = [name for name in wanted if name not in found]
    if missing:
        near = did_you_mean(missing[0], tuple(name for name in found if name not in wanted))
        raise SchemaError(
            f"table {spec.name}: the batch lacks the column {', '.join(missing)}",
            remedy=f"it has {', '.join(found) or 'no columns'}" + (f"; {near}" if near.startswith("did") else ""),
        )
    extra = [name for name in found if name not in wanted]
    if extra:
        why = " (recorded_at is given to write(), not in the rows)" if "recorded_at" in extra else ""
        raise SchemaError(
            f"table {spec.name}: the batch has the column {', '.join(extra)}, which the table has not{why}",
            remedy=f"its columns are {', '.join(wanted)}",
        )


def _cast(column: pa.ChunkedArray, field: pa.Field, spec: TableSpec) -> pa.ChunkedArray:
    found, wanted = column.type, field.type
    if found == wanted:
        return column
    if pa.types.is_dictionary(found):
        column, found = column.cast(found.value_type), found.value_type
    if not _compatible(found, wanted):
        naive = pa.types.is_timestamp(wanted) and pa.types.is_timestamp(found)
        raise SchemaError(
            f"table {spec.name}: column {field.name} is {found}, the table's is {wanted}",
            remedy="give times with a time zone (UTC); a naive time is never guessed" if naive else None,
        )
    try:
        return column.cast(wanted, safe=True)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as problem:
        raise SchemaError(
            f"table {spec.name}: column {field.name} is {found} and does not fit {wanted} without loss: {problem}"
        ) from problem


def _compatible(found: pa.DataType, wanted: pa.DataType) -> bool:
    kinds = pa.types
    if kinds.is_null(found):
        return True
    if kinds.is_string(wanted):
        return bool(kinds.is_string(found) or kinds.is_large_string(found) or kinds.is_string_view(found))
    if kinds.is_floating(wanted):
        return bool(kinds.is_floating(found) or kinds.is_integer(found))
    if kinds.is_integer(wanted):
        return bool(kinds.is_integer(found))
    if kinds.is_timestamp(wanted):
        return bool(kinds.is_timestamp(found) and found.tz is not None)
    return bool(kinds.is_date(wanted) and kinds.is_date(found))


def _in_key_order(table: pa.Table, spec: TableSpec) -> pa.Table:
    numbers = key_numbers(table, spec.key)
    order = ascending(numbers)
    again = repeats(numbers, order)
    if not again.size:
        return table if order is None else table.take(order)
    first = table.select(spec.key).slice(int(again[0]), 1).to_pylist()[0]
    key = ", ".join(f"{name}={first[name]!s}" for name in spec.key)
    raise SchemaError(
        f"table {spec.name}: {again.size} rows repeat a key of the same batch; the first: {key}",
        remedy="a batch holds one row a key: keep the right one, or send the batch through lake.quality.split",
    )
