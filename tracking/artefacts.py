"""Writes what a run leaves behind: tables as Parquet, documents as JSON, a picture; each with its SHA-256."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config.errors import InputError
from config.hashing import sha256_bytes

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Artefact", "equity_picture", "plain_json", "write_artefacts"]

Artefact = Any
"""A DataFrame (Parquet), a mapping or list (JSON), a text or bytes."""


def write_artefacts(folder: Path, files: Mapping[str, Artefact]) -> dict[str, str]:
    """Write each artefact into `folder`.

    Returns
    -------
    dict of str to str
        File name to SHA-256.

    Raises
    ------
    InputError
        A name leaves the folder, or a value is of no kind that can be written.
    """
    digests: dict[str, str] = {}
    for name, value in files.items():
        file_name, content = _content(name, value)
        if Path(file_name).name != file_name or file_name.startswith("."):
            raise InputError(f"artefact name {name!r} is not a plain file name", remedy="use letters, digits, _ and -")
        (folder / file_name).write_bytes(content)
        digests[file_name] = sha256_bytes(content)
    return digests


def plain_json(value: Any) -> str:
    """JSON for people and for hashing: sorted keys, two spaces; a number that is not finite becomes its name as text."""
    return json.dumps(_finite(value), sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def equity_picture(equity: pd.Series, title: str) -> bytes:
    """A PNG of an equity curve, on a log scale while it stays positive."""
    import io

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), dpi=96, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(equity.index, equity.to_numpy(), linewidth=1.2, color="#2456a6")
    if bool((equity > 0).all()):
        axes.set_yscale("log")
    axes.set_title(title, loc="left", fontsize=10)
    axes.grid(alpha=0.25)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _content(name: str, value: Artefact) -> tuple[str, bytes]:
    import pandas as pd

    if isinstance(value, pd.DataFrame):
        import io

        buffer = io.BytesIO()
        value.to_parquet(buffer, compression="zstd")
        return f"{name}.parquet", buffer.getvalue()
    if isinstance(value, bytes):
        return name, value
    if isinstance(value, str):
        return name, value.encode()
    if isinstance(value, Mapping | list | tuple):
        return f"{name}.json", plain_json(value).encode()
    raise InputError(f"artefact {name!r} is a {type(value).__name__}", remedy="pass a DataFrame, a mapping, a list, text or bytes")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if hasattr(value, "item") and callable(value.item):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, str | int | float | bool):
        return value
    return str(value)
