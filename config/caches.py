"""Where libraries keep their caches when their own places cannot be written, as in a container with a read-only installation."""

from __future__ import annotations

import os
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

__all__ = ["place_caches"]


def place_caches() -> None:
    """Point the caches of Prefect, matplotlib and numba into the home folder, as far as their own places cannot be written.

    Numba refuses to define a function whose cache has no place, Prefect and matplotlib warn. To be called before they are
    imported; what the environment says already stays.
    """
    folder = Path(os.environ.get("QUANT_HOME") or ".quant").expanduser().absolute() / "cache"
    home = Path(os.environ.get("HOME") or "~").expanduser()
    if _takes_files(home):
        return
    with suppress(OSError):  # whoever needs the home folder says so; Prefect makes one level of its folder only
        folder.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PREFECT_HOME", str(folder / "prefect"))
    os.environ.setdefault("MPLCONFIGDIR", str(folder / "matplotlib"))
    package = find_spec("vectorbt")
    if package is None or package.origin is None or not _takes_files(Path(package.origin).parent):
        os.environ.setdefault("NUMBA_CACHE_DIR", str(folder / "numba"))


def _takes_files(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
