"""Which code, environment and configuration made a number: digests that change whenever one of them does."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from config.hashing import digest, sha256_file
from config.settings import Settings

__all__ = ["CodeFingerprint", "EnvironmentFingerprint", "code_fingerprint", "configuration_fingerprint", "environment_fingerprint"]

ROOMS = ("config", "lake", "risk", "features", "tracking", "execution", "backtests", "flows")
_SOURCES = frozenset({".py", ".yaml", ".csv", ".sql", ".html", ".j2", ".css"})


@dataclass(frozen=True, slots=True)
class CodeFingerprint:
    """The house's own code.

    Parameters
    ----------
    digest : str
        SHA-256 over the name and content of every source file of the eight rooms: uncommitted edits change it.
    commit : str or None
        The Git commit checked out, where this is a checkout.
    """

    digest: str
    commit: str | None


@dataclass(frozen=True, slots=True)
class EnvironmentFingerprint:
    """Python and the installed packages.

    Parameters
    ----------
    python, system : str
    packages : tuple of str
        ``name-version`` of every installed distribution, sorted.
    digest : str
        SHA-256 of all of it.
    """

    python: str
    system: str
    packages: tuple[str, ...]
    digest: str


@functools.lru_cache(maxsize=1)
def code_fingerprint() -> CodeFingerprint:
    """Fingerprint the code this process runs; read once, so that an edit during a long run does not mix two."""
    root = Path(__file__).resolve().parents[1]
    files = [path for room in ROOMS for path in (root / room).rglob("*") if path.suffix in _SOURCES and path.is_file()]
    content = {path.relative_to(root).as_posix(): sha256_file(path) for path in files}
    return CodeFingerprint(digest(content), _commit(root))


@functools.lru_cache(maxsize=1)
def environment_fingerprint() -> EnvironmentFingerprint:
    """Fingerprint the interpreter and the packages on its path (by their metadata folders' names)."""
    found: set[str] = set()
    for entry in sys.path:
        if entry and os.path.isdir(entry):
            found.update(name.removesuffix(".dist-info") for name in os.listdir(entry) if name.endswith(".dist-info"))
    packages = tuple(sorted(found, key=str.lower))
    system = f"{platform.system()} {platform.machine()}"
    python = platform.python_version()
    return EnvironmentFingerprint(python, system, packages, digest([python, system, list(packages)]))


def _commit(root: Path) -> str | None:
    """The commit, or None where there is no checkout or no Git; the digest above identifies the code either way."""
    if not (root / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None


def configuration_fingerprint(settings: Settings) -> str:
    """SHA-256 of the settings that numbers depend on; where things are kept, and every credential, are left out."""
    return digest(settings.model_dump(mode="json", include={"data", "convention", "evidence", "execution", "risk"}))
