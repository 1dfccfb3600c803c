"""The earlier system's Alpaca client: the same names, on the gateway that the settings name (simulated unless changed)."""

from __future__ import annotations

from config.clock import Clock
from config.errors import ConfigError
from config.settings import Settings, load_settings
from execution.client import OrderClient, OrderRiskManager, PriceSource, lake_prices, open_client, system_clock

__all__ = ["create_alpaca_client", "create_alpaca_risk_manager"]


def create_alpaca_client(
    paper: bool = True,
    *,
    settings: Settings | None = None,
    prices: PriceSource | None = None,
    clock: Clock | None = None,
) -> OrderClient:
    """A client for a paper account.

    Parameters
    ----------
    paper : bool
        Live trading has to be armed and is not offered here.
    settings : Settings, optional
        Loaded when not given. ``execution.gateway``: *simulated* needs nothing; *alpaca* needs ALPACA_API_KEY and
        ALPACA_API_SECRET.
    prices : callable, optional
        Symbols to quotes; the lake's newest closes when not given.
    clock : Clock, optional
        Simulated: the time of the newest bar when not given. Alpaca: the machine's.

    Raises
    ------
    ConfigError
        ``paper=False``, a missing key, or a gateway that is not this client's.
    """
    if not paper:
        raise ConfigError(
            "paper=False: live orders need arming (a flag, an armed file, the account's last characters), which is not built yet",
            remedy="use paper=True",
        )
    chosen = settings if settings is not None else load_settings()
    if chosen.execution.gateway == "simulated":
        return open_client(chosen, prices=prices, clock=clock)
    if chosen.execution.gateway == "alpaca":
        from execution.alpaca_gateway import connect_alpaca

        source = prices if prices is not None else lake_prices(chosen)
        return OrderClient(connect_alpaca(chosen), chosen, prices=source, clock=system_clock(clock))
    raise ConfigError(
        f"execution.gateway is {chosen.execution.gateway}, and an Alpaca client was asked for",
        remedy="set execution.gateway to alpaca or simulated, or use create_ibkr_client",
    )


def create_alpaca_risk_manager(client: OrderClient) -> OrderRiskManager:
    """A risk manager that validates orders against the limits of section `risk` of the settings."""
    return OrderRiskManager(client)
