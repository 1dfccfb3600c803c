"""Settings: defaults.yaml < the user's YAML file < environment < arguments, validated, unknown keys refused.

1. `load_settings` reads `defaults.yaml`, then the user's file (`_user_file`), refusing unknown keys (`_refuse_unknown`).
2. It lays the environment over it (`_environment`), then the caller's overrides.
3. pydantic validates the whole; a problem is worded as a `ConfigError` that names the key, the value and its origin.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from config.addresses import has_password, object_store, without_password
from config.conventions import Convention
from config.errors import ConfigError, did_you_mean

__all__ = [
    "ConventionSettings",
    "CredentialSettings",
    "DailySettings",
    "DataSettings",
    "EvidenceSettings",
    "ExecutionSettings",
    "LakeSettings",
    "RiskSettings",
    "Settings",
    "TrackingSettings",
    "UiSettings",
    "load_settings",
]

DEFAULTS = Path(__file__).with_name("defaults.yaml")
USER_FILE = "quantrail.yaml"

# Names that users of the earlier system have in their environment, and where they belong.
NAMED_VARIABLES: dict[str, tuple[str, ...]] = {
    "QUANT_HOME": ("home",),
    "MLFLOW_TRACKING_URI": ("tracking", "uri"),
    "PREFECT_SERVER_DATABASE_CONNECTION_URL": ("ui", "prefect_database"),
    "FRED_API_KEY": ("credentials", "fred"),
    "TRADIER_API_KEY": ("credentials", "tradier"),
    "POLYGON_API_KEY": ("credentials", "polygon"),
    "ALPACA_API_KEY": ("credentials", "alpaca"),
    "ALPACA_API_SECRET": ("credentials", "alpaca_secret"),
    "QUANT_ALERT_WEBHOOK": ("credentials", "alert_webhook"),
}
NOT_SETTINGS = frozenset({"QUANT_CONFIG"})


TimeOfDay = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataSettings(_Section):
    """Which sources each dataset is asked of, in order, how politely, and how far back they are asked again.

    `addresses` names another base address for a source; `seconds_between_requests` is the least time between two requests to it;
    `source_options` holds the options of a source that a chain of sources or a schedule shall use. `expected_delay_hours`, by
    table, is how long after its publication data is late; `recorded_sources` are never late.
    """

    equity: tuple[str, ...]
    options: tuple[str, ...]
    macro: tuple[str, ...]
    cot: tuple[str, ...]
    calendar: str
    requests_at_once: int = Field(ge=1, le=1000)
    timeout_seconds: float = Field(gt=0, le=3600)
    seconds_between_requests: dict[str, float]
    addresses: dict[str, str]
    source_options: dict[str, dict[str, Any]]
    overlap_sessions: int = Field(ge=0, le=10_000)
    expected_delay_hours: dict[str, float]
    recorded_sources: tuple[str, ...]


class DailySettings(_Section):
    """What the scheduled ingest asks for; an empty list asks for all that the first source has.

    `universe` adds the symbols that are its members on the day. `at` and `watch_at` are New York times of day: of the ingest, and
    of the looks at what is late.
    """

    datasets: tuple[Literal["equity", "macro", "options", "cot"], ...]
    symbols: tuple[str, ...]
    universe: str
    series: tuple[str, ...]
    underlyings: tuple[str, ...]
    markets: tuple[str, ...]
    at: TimeOfDay
    watch_at: tuple[TimeOfDay, ...]


class LakeSettings(_Section):
    """Where the lake is, how often a colliding write is tried again, and how much of a bucket's files is kept on this machine."""

    path: str
    write_attempts: int = Field(ge=1, le=1000)
    cache_gb: float = Field(gt=0)

    @field_validator("path")
    @classmethod
    def _is_a_place(cls, path: str) -> str:
        object_store(path)
        return path


class TrackingSettings(_Section):
    """Where MLflow keeps its runs and its artefacts."""

    uri: str = Field(repr=False)
    artifacts: str


class ConventionSettings(_Section):
    """The trading convention; see `config.conventions.Convention`."""

    fill: Literal["next_open", "same_close"]
    slippage_bps: float = Field(ge=0, lt=10_000)
    fee_bps: float = Field(ge=0, lt=10_000)
    initial_cash: float = Field(gt=0)
    fractional: bool
    cash_interest_ann: float = Field(ge=-0.1, le=1)
    risk_free_ann: float = Field(ge=-0.1, le=1)
    sessions_per_year: float = Field(gt=0, le=366)


class EvidenceSettings(_Section):
    """How the statistics behind the gates are computed."""

    bootstrap_samples: int = Field(ge=100)
    interval_level: float = Field(gt=0.5, lt=1)
    pbo_blocks: int = Field(ge=4, le=24, multiple_of=2)
    walk_forward_folds: int = Field(ge=2)
    seed: int


class ExecutionSettings(_Section):
    """Which gateway carries orders, and how long it is waited for."""

    gateway: Literal["simulated", "alpaca", "ibkr"]
    account: str
    alpaca_url: str
    ibkr_host: str
    ibkr_client_id: int
    timeout_seconds: float = Field(gt=0)
    initial_cash: float = Field(gt=0)


class RiskSettings(_Section):
    """Limits of the pre-trade guard and the halts; fractions of equity unless the name says otherwise."""

    max_order_size: float = Field(gt=0)
    min_order_size: float = Field(ge=0)
    max_order_notional: float = Field(gt=0)
    max_leverage: float = Field(gt=0)
    max_concentration: float = Field(gt=0)
    max_drawdown: float = Field(gt=0, le=1)
    max_volatility: float = Field(gt=0)
    max_orders_per_day: int = Field(ge=1)
    price_age_seconds: float = Field(gt=0)
    clock_skew_seconds: float = Field(gt=0)
    short_allowed: bool
    restricted: tuple[str, ...]


class UiSettings(_Section):
    """Where `quant ui` listens (loopback unless changed on purpose), and the database of its Prefect server."""

    host: str
    prefect_port: int = Field(ge=0, le=65535)
    mlflow_port: int = Field(ge=0, le=65535)
    prefect_database: str = Field(repr=False)


class CredentialSettings(_Section):
    """Credentials: from the environment only, never shown.

    The section is not called ``keys``: Prefect walks through what tasks are given, and takes anything with ``keys`` for a mapping.
    """

    fred: SecretStr | None = None
    tradier: SecretStr | None = None
    polygon: SecretStr | None = None
    alpaca: SecretStr | None = None
    alpaca_secret: SecretStr | None = None
    alert_webhook: SecretStr | None = None


class Settings(_Section):
    """Everything that can be set. Frozen; made by `load_settings`."""

    home: Path
    data: DataSettings
    daily: DailySettings
    lake: LakeSettings
    tracking: TrackingSettings
    convention: ConventionSettings
    evidence: EvidenceSettings
    execution: ExecutionSettings
    risk: RiskSettings
    ui: UiSettings
    credentials: CredentialSettings = CredentialSettings()

    @property
    def home_path(self) -> Path:
        """The home folder, absolute."""
        return self.home.expanduser().absolute()

    @property
    def lake_address(self) -> str:
        """Where the lake is: ``s3://bucket/prefix`` as set, else a folder, absolute."""
        if object_store(self.lake.path) is not None:
            return self.lake.path.rstrip("/")
        return str(Path(self.lake.path).expanduser().absolute() if self.lake.path else self.home_path / "lake")

    @property
    def tracking_uri(self) -> str:
        """The MLflow tracking address: as set, else the SQLite store in the home folder."""
        return self.tracking.uri or f"sqlite:///{self.home_path / 'mlflow' / 'mlflow.db'}"

    @property
    def artifacts_path(self) -> str:
        """Where MLflow artefacts go: as set, else a folder in the home folder."""
        return self.tracking.artifacts or str(self.home_path / "mlflow" / "artifacts")

    def trading_convention(self) -> Convention:
        """The convention as the object the engines take."""
        return Convention(**self.convention.model_dump())


def load_settings(overrides: Mapping[str, Any] | None = None, *, environ: Mapping[str, str] | None = None) -> Settings:
    """Read and validate the settings.

    Parameters
    ----------
    overrides : mapping, optional
        Nested or dotted keys (``{"execution.gateway": "simulated"}``) that win over everything else.
    environ : mapping, optional
        Instead of the process's environment, for tests.

    Raises
    ------
    ConfigError
        A file cannot be read, a key is unknown, a value does not fit; the message names the key and where it was set.
    """
    env = os.environ if environ is None else environ
    defaults = _read_yaml(DEFAULTS)
    merged: dict[str, Any] = defaults
    origin: dict[str, str] = {}
    user_file = _user_file(env)
    layers: list[tuple[str, dict[str, Any]]] = []
    if user_file is not None:
        given = _read_yaml(user_file)
        if "credentials" in given:
            raise ConfigError(
                f"{user_file}: credentials do not belong in a file (section 'credentials')",
                remedy=f"set them in the environment: {', '.join(n for n, p in NAMED_VARIABLES.items() if p[0] == 'credentials')}",
            )
        _refuse_passwords(given, user_file)
        layers.append((str(user_file), given))
    layers.append(("the environment", _environment(env, defaults)))
    if overrides:
        layers.append(("the arguments", _nest(overrides)))
    for where, layer in layers:
        _refuse_unknown(layer, where)
        merged = _merge(merged, layer, where, origin)
    try:
        return Settings.model_validate(merged)
    except ValidationError as problem:
        first = problem.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        shown = "" if key.startswith("credentials") else f" (found {without_password(repr(first['input']))})"
        place = next((origin[k] for k in (key, *_parents(key)) if k in origin), str(DEFAULTS))
        remedy = "config/defaults.yaml lists every setting"
        if first["type"] in ("dict_type", "mapping_type") and place == "the environment":
            remedy = f"a mapping takes one variable a key: QUANT_{key.upper().replace('.', '__')}__<KEY>=…"
        raise ConfigError(f"{place}: {key}: {first['msg']}{shown}", remedy=remedy) from None


def _refuse_passwords(tree: Mapping[str, Any], path: Path, prefix: str = "") -> None:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            _refuse_passwords(value, path, f"{prefix}{key}.")
        elif isinstance(value, str) and has_password(value):
            raise ConfigError(
                f"{path}: {prefix}{key} is an address with a password in it, and passwords do not belong in a file",
                remedy="give the address in the environment (MLFLOW_TRACKING_URI, PREFECT_SERVER_DATABASE_CONNECTION_URL, "
                "QUANT_<SECTION>__<KEY>), or leave the password to PGPASSWORD or ~/.pgpass",
            )


def _parents(key: str) -> list[str]:
    parts = key.split(".")
    return [".".join(parts[:n]) for n in range(len(parts) - 1, 0, -1)]


def _user_file(env: Mapping[str, str]) -> Path | None:
    named = env.get("QUANT_CONFIG")
    if named:
        path = Path(named).expanduser()
        if not path.is_file():
            raise ConfigError(f"QUANT_CONFIG names {named}, which is not a file", remedy="correct the path or unset QUANT_CONFIG")
        return path
    here = Path(USER_FILE)
    return here if here.is_file() else None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise ConfigError(f"cannot read {path}: {problem.strerror}") from problem
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(problem).split())}") from problem
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds a {type(content).__name__}; settings are a mapping of sections")
    return content


def _environment(env: Mapping[str, str], defaults: dict[str, Any]) -> dict[str, Any]:
    """Settings found in the environment; a QUANT_ name that is no setting is refused by `_refuse_unknown`."""
    found: dict[str, Any] = {}
    for name, value in env.items():
        if name in NOT_SETTINGS or (name in NAMED_VARIABLES and not value):
            continue
        if name in NAMED_VARIABLES:
            _put(found, NAMED_VARIABLES[name], value)
        elif name.startswith("QUANT_"):
            path = tuple(part.lower() for part in name.removeprefix("QUANT_").split("__"))
            default = _get(defaults, path)
            _put(found, path, [v.strip() for v in value.split(",") if v.strip()] if isinstance(default, list) else value)
    return found


def _get(tree: dict[str, Any], path: tuple[str, ...]) -> Any:
    for part in path:
        if not isinstance(tree, dict) or part not in tree:
            return None
        tree = tree[part]
    return tree


def _put(tree: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    for part in path[:-1]:
        tree = tree.setdefault(part, {})
    tree[path[-1]] = value


def _nest(overrides: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in overrides.items():
        _put(tree, tuple(key.split(".")), _nest(value) if isinstance(value, Mapping) else value)
    return tree


def _refuse_unknown(layer: dict[str, Any], where: str) -> None:
    known = list(Settings.model_fields)
    for section, content in layer.items():
        if section not in known:
            raise ConfigError(f"{where}: unknown setting {section!r}", remedy=did_you_mean(str(section), known))
        model = Settings.model_fields[section].annotation
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            continue
        if not isinstance(content, dict):
            raise ConfigError(f"{where}: {section} is a section with keys, not {content!r}")
        for key in content:
            if key not in model.model_fields:
                raise ConfigError(
                    f"{where}: unknown setting {section}.{key}", remedy=did_you_mean(str(key), list(model.model_fields))
                )


def _merge(base: dict[str, Any], layer: dict[str, Any], where: str, origin: dict[str, str], prefix: str = "") -> dict[str, Any]:
    merged = dict(base)
    for key, value in layer.items():
        full = f"{prefix}{key}"
        if isinstance(value, dict):
            merged[key] = _merge(merged.get(key, {}), value, where, origin, f"{full}.")
        else:
            merged[key] = value
            origin[full] = where
    return merged
