"""What tests of vendors' sources share: settings that lead to a replay server, recordings with their Date, a search for keys."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from config.settings import Settings, load_settings
from tests.replay import ReplayServer

FIXTURES = Path(__file__).resolve().parents[1] / "replay" / "fixtures"
KEY = "quantrail-test-key-7f3a91"
SECRET = "quantrail-test-secret-c04be2"


def settings_for(server: ReplayServer, source: str, host: str, **more: Any) -> Settings:
    """Settings under which `source` asks the server, without a pause, with keys that can be looked for."""
    overrides: dict[str, Any] = {
        "data.addresses": {source: server.address(host)},
        "data.seconds_between_requests": {source: 0.0},
        "data.timeout_seconds": 2.0,
        **more,
    }
    keys = {"TRADIER_API_KEY": KEY, "POLYGON_API_KEY": KEY, "ALPACA_API_KEY": KEY, "ALPACA_API_SECRET": SECRET}
    import os

    return load_settings(overrides, environ={**os.environ, **keys})


def dated(folder: Path, into: Path, only: Collection[str] | None = None) -> Path:
    """The recordings of a folder, each answered with the Date at which it was recorded; an index in `into`."""
    entries: list[dict[str, Any]] = []
    for entry in json.loads((folder / "index.json").read_text(encoding="utf-8")):
        if only is None or entry["id"] in only:
            headers: Mapping[str, Any] = {**entry["headers"], "Date": entry["recorded"]}
            entries.append({**entry, "headers": headers, "body_file": str(folder / entry["body_file"])})
    into.mkdir(parents=True, exist_ok=True)
    (into / "index.json").write_text(json.dumps(entries))
    return into


def body(source: str, name: str) -> bytes:
    """The bytes of a hand-made fixture."""
    return (FIXTURES / source / "bodies" / name).read_bytes()


def files_with(text: str, folder: Path) -> list[str]:
    """The files below `folder` in which a text stands."""
    needle = text.encode()
    return [str(path) for path in sorted(folder.rglob("*")) if path.is_file() and needle in path.read_bytes()]
