"""Settings: four layers, unknown keys refused, secrets hidden."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.errors import ConfigError
from config.settings import load_settings


def test_defaults_are_complete_and_valid() -> None:
    settings = load_settings(environ={})
    assert settings.convention.fee_bps == 10.0
    assert settings.execution.gateway == "simulated"
    assert settings.lake_address == str(settings.home_path / "lake")


def test_arguments_win_over_environment_over_file_over_defaults(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("convention:\n  fee_bps: 1.0\n  slippage_bps: 1.0\n  initial_cash: 1.0\n")
    env = {"QUANT_CONFIG": str(path), "QUANT_CONVENTION__SLIPPAGE_BPS": "2.0", "QUANT_CONVENTION__INITIAL_CASH": "2.0"}
    convention = load_settings({"convention.initial_cash": 3.0}, environ=env).convention
    assert (convention.fee_bps, convention.slippage_bps, convention.initial_cash) == (1.0, 2.0, 3.0)
    assert convention.fill == "next_open"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("riks:\n  max_leverage: 2\n", "unknown setting 'riks'\n  → did you mean risk"),
        ("risk:\n  max_levrage: 2\n", "unknown setting risk.max_levrage\n  → did you mean max_leverage"),
        ("risk:\n  max_leverage: -2\n", "risk.max_leverage: Input should be greater than 0 (found -2)"),
        ("risk: 3\n", "risk is a section with keys, not 3"),
        ("- a\n- b\n", "holds a list; settings are a mapping of sections"),
        ("risk: [\n", "is not valid YAML"),
        ("credentials:\n  fred: abc\n", "credentials do not belong in a file"),
    ],
)
def test_a_wrong_file_is_refused_with_its_path_the_key_and_the_remedy(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(environ={"QUANT_CONFIG": str(path)})
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_a_credential_in_a_file_is_not_repeated_in_the_error(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("credentials:\n  fred: very-secret\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(environ={"QUANT_CONFIG": str(path)})
    assert "very-secret" not in str(caught.value)


def test_a_misspelt_environment_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown setting risk.max_levrage"):
        load_settings(environ={"QUANT_RISK__MAX_LEVRAGE": "2"})


def test_the_earlier_systems_environment_names_keep_their_meaning() -> None:
    env = {"FRED_API_KEY": "f", "ALPACA_API_KEY": "a", "ALPACA_API_SECRET": "s", "MLFLOW_TRACKING_URI": "http://127.0.0.1:5001"}
    settings = load_settings(environ=env)
    assert settings.credentials.fred is not None
    assert settings.credentials.fred.get_secret_value() == "f"
    assert settings.tracking_uri == "http://127.0.0.1:5001"


def test_secrets_show_in_no_representation() -> None:
    settings = load_settings(environ={"ALPACA_API_SECRET": "very-secret"})
    assert "very-secret" not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"


def test_lists_come_from_the_environment_by_commas() -> None:
    assert load_settings(environ={"QUANT_RISK__RESTRICTED": "GME, AMC"}).risk.restricted == ("GME", "AMC")


def test_a_missing_settings_file_is_an_error_not_a_default(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="which is not a file"):
        load_settings(environ={"QUANT_CONFIG": str(tmp_path / "absent.yaml")})


def test_a_mapping_given_whole_in_the_environment_is_told_how_to_be_given() -> None:
    with pytest.raises(ConfigError) as wrong:
        load_settings(environ={"QUANT_DATA__SECONDS_BETWEEN_REQUESTS": "{yahoo: 1.0}"})
    assert wrong.value.remedy == "a mapping takes one variable a key: QUANT_DATA__SECONDS_BETWEEN_REQUESTS__<KEY>=…"
    told = load_settings(environ={"QUANT_DATA__SECONDS_BETWEEN_REQUESTS__YAHOO": "1.25"})
    assert told.data.seconds_between_requests["yahoo"] == 1.25
