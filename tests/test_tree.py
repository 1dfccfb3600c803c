"""The tree itself: it imports only what it declares, names only functions that there are, and knows no machine."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("config", "lake", "risk", "features", "tracking", "execution", "backtests", "flows")
MODULES = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]


def declared(*extras: str) -> set[str]:
    """Names of the distributions that pyproject.toml asks for, normalised."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [*project["dependencies"], *(one for extra in extras for one in project["optional-dependencies"][extra])]
    return {normal(re.split(r"[\[=<>~! ]", one)[0]) for one in asked}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(path: Path) -> set[str]:
    """Top-level names of what a file imports from elsewhere, inside of functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(str(node.module).partition(".")[0])
    return found - set(sys.stdlib_module_names) - {*ROOMS, "tests"}


def test_whatever_is_imported_is_declared() -> None:
    homes = packages_distributions()
    here = declared()
    undeclared = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in MODULES
        for name in imported(path)
        if not here & {normal(home) for home in homes.get(name, [name])}
    }
    assert not undeclared


def test_whatever_the_tests_import_is_declared() -> None:
    homes = packages_distributions()
    here = declared("dev", "postgres")
    brought = {"werkzeug": "moto[server]"}  # by an extra that is declared
    undeclared = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for name in imported(path) - brought.keys()
        if not here & {normal(home) for home in homes.get(name, [name])}
    }
    assert not undeclared


def test_docstrings_name_only_private_functions_that_their_module_has() -> None:
    gone = set()
    for path in MODULES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        code = {getattr(node, field) for node in ast.walk(tree) for field in ("name", "id", "attr", "arg") if hasattr(node, field)}
        documented = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
        named = {name for node in documented for name in re.findall(r"(?<!`)`(_\w+)`(?!`)", ast.get_docstring(node) or "")}
        gone |= {f"{path.relative_to(ROOT)}: {name}" for name in named - code}
    assert not gone


def test_no_file_knows_the_folder_it_was_written_in_or_a_package_registry() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a checkout of git: its files cannot be told from others")
    # Registries in pieces, so that this file does not find itself.
    hosts = ["py" + "pi.org", "python" + "hosted", "npm" + "js.", "proxy." + "golang", "conda." + "anaconda"]
    found = []
    for name in filter(None, listed.stdout.decode().split("\0")):
        data = (ROOT / name).read_bytes() if (ROOT / name).is_file() else b""
        found += [f"{name}: {word}" for word in (str(ROOT), *hosts) if b"\0" not in data[:8000] and word.encode() in data]
    assert not found


def test_no_client_that_goes_past_pytest_socket_gets_off_this_machine() -> None:
    import obstore
    from curl_cffi import requests
    from obstore.store import HTTPStore

    # 192.0.2.1 is nobody's (RFC 5737). Without the guard in conftest.py both clients would say that it does not answer.
    with pytest.raises(requests.exceptions.RequestException, match=r"127\.0\.0\.1"):
        requests.get("https://192.0.2.1/", timeout=2)
    store = HTTPStore("http://192.0.2.1/", client_options={"timeout": "2s", "allow_http": True}, retry_config={"max_retries": 0})
    with pytest.raises(Exception, match=r"127\.0\.0\.1:9"):
        obstore.get(store, "x")
    child = subprocess.run(
        [sys.executable, "-c", "import urllib.request as u; u.urlopen('http://192.0.2.1/', timeout=2)"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Connection refused" in child.stderr
