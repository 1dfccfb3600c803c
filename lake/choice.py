"""One source a name, chosen or the only one there is; two are never mixed."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from config.errors import InputError

__all__ = ["one_source"]


def one_source(rows: pa.Table, column: str, chosen: str | Mapping[str, str] | None, *, argument: str) -> pa.Table:
    """Keep the chosen source of each name in `column`; refuse to mix two.

    Parameters
    ----------
    chosen : str, mapping of str to str, or None
        One source for all, or by name; None where each name has but one.
    argument : str
        The caller's parameter, for the message.

    Raises
    ------
    InputError
        Two sources hold the same name and none was chosen.
    """
    if isinstance(chosen, str):
        return rows.filter(pc.equal(rows["source"], chosen))
    if chosen is None and len(rows["source"].unique()) <= 1:
        return rows
    pairs = rows.group_by([column, "source"]).aggregate([]).to_pylist()
    sources: dict[str, list[str]] = {}
    for pair in pairs:
        sources.setdefault(pair[column], []).append(pair["source"])
    wanted: dict[str, str] = {}
    for name, found in sorted(sources.items()):
        choice = (chosen or {}).get(name)
        if choice is None and len(found) > 1:
            raise InputError(
                f"{name} comes from {len(found)} sources ({', '.join(sorted(found))}), which are never mixed",
                remedy=f'choose one: {argument}="{sorted(found)[0]}"',
            )
        wanted[name] = choice if choice is not None else found[0]
    if all(wanted[name] == of for name, found in sources.items() for of in found):
        return rows
    joined = pc.binary_join_element_wise(rows[column], rows["source"], "\x1f")
    return rows.filter(
        pc.is_in(joined, value_set=pa.array([f"{name}\x1f{source}" for name, source in wanted.items()], pa.string()))
    )
