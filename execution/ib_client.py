"""The earlier system's Interactive Brokers client: simulated by settings, or a connection to TWS that does not trade yet.

ib-insync is imported by the thread that owns the connection, after that thread has an event loop of its own: its dependency
`eventkit` takes the loop it finds at import, and an owner thread works the same under Prefect, in a notebook and in a script.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from config.clock import Clock
from config.errors import ConfigError, OrderRefused, ServiceUnavailable
from config.settings import Settings, load_settings
from execution.client import OrderClient, PriceSource, open_client

__all__ = ["IbkrConnection", "create_ibkr_client"]

T = TypeVar("T")


def create_ibkr_client(
    port: int = 7496,
    *,
    settings: Settings | None = None,
    prices: PriceSource | None = None,
    clock: Clock | None = None,
) -> OrderClient | IbkrConnection:
    """A client for a paper account, by settings.

    Parameters
    ----------
    port : int
        Of TWS (7496 live, 7497 paper) or the IB Gateway (4001, 4002); not used by the simulated gateway.
    settings : Settings, optional
        ``execution.gateway``: *simulated* gives an `OrderClient`, *ibkr* an `IbkrConnection` at ``execution.ibkr_host``.

    Raises
    ------
    ConfigError
        The settings name a gateway that is not this client's.
    ServiceUnavailable
        Nothing answers at that address.
    """
    chosen = settings if settings is not None else load_settings()
    if chosen.execution.gateway == "simulated":
        return open_client(chosen, prices=prices, clock=clock)
    if chosen.execution.gateway == "ibkr":
        execution = chosen.execution
        return IbkrConnection(
            execution.ibkr_host, port, client_id=execution.ibkr_client_id, timeout_seconds=execution.timeout_seconds
        )
    raise ConfigError(
        f"execution.gateway is {chosen.execution.gateway}, and an Interactive Brokers client was asked for",
        remedy="set execution.gateway to ibkr or simulated, or use create_alpaca_client",
    )


class IbkrConnection:
    """A connection to TWS or the IB Gateway: the handshake, and which accounts are there.

    It sends no orders: `place_market_order` and `execute_portfolio_trades` refuse, because what TWS does with lost answers, cached
    summaries and error 10349 has not been tested here yet.

    Parameters
    ----------
    timeout_seconds : float
        For the whole handshake.

    Raises
    ------
    ServiceUnavailable
        Nothing listens, or what listens does not answer as TWS does, in time. (A client id in use, error 326, looks the same.)
    """

    gateway = "ibkr"

    def __init__(self, host: str, port: int, *, client_id: int, timeout_seconds: float) -> None:
        self._address = f"{host}:{port}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._own, name="ibkr", daemon=True)
        self._thread.start()
        try:
            self._ib = self._call(_connect(host, port, client_id, timeout_seconds), timeout_seconds + 5.0)
        except (OSError, TimeoutError, EOFError) as problem:
            self.close()
            raise ServiceUnavailable(
                f"no TWS or IB Gateway answers at {self._address} within {timeout_seconds:g} s ({type(problem).__name__})",
                remedy=f"start it, enable its API, check the port (7497 paper, 7496 live) and that client id {client_id} is free",
            ) from problem

    def get_account_info(self) -> dict[str, Any]:
        """What the handshake told: the accounts' ids and the server's version. Balances are not read yet."""

        async def told() -> dict[str, Any]:
            client = self._ib.client
            return {"gateway": self.gateway, "accounts": list(client.getAccounts()), "server_version": client.serverVersion()}

        return self._call(told(), 5.0)

    def place_market_order(self, symbol: str, qty: float, side: str) -> dict[str, Any]:
        """Refuse: see the class."""
        raise self._refusal(f"{side} {qty} {symbol}")

    def execute_portfolio_trades(self, target_weights: dict[str, float]) -> list[dict[str, Any]]:
        """Refuse: see the class."""
        raise self._refusal(f"{len(target_weights)} target weights")

    def close(self) -> None:
        """Disconnect and end the owner thread."""
        ib = getattr(self, "_ib", None)
        if ib is not None:
            self._call(_disconnect(ib), 5.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        self._loop.close()

    def _refusal(self, what: str) -> OrderRefused:
        return OrderRefused(
            f"{what}: orders are not sent to Interactive Brokers yet; the connection at {self._address} is for looking only",
            rule="gateway_cannot_trade",
            remedy="use execution.gateway: simulated or alpaca",
        )

    def _own(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _call(self, work: Coroutine[Any, Any, T], timeout_seconds: float) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(timeout_seconds)
        except TimeoutError:
            future.cancel()
            raise


async def _connect(host: str, port: int, client_id: int, timeout_seconds: float) -> Any:
    from ib_insync import IB

    ib = IB()
    await ib.client.connectAsync(host, port, client_id, timeout_seconds)
    return ib


async def _disconnect(ib: Any) -> None:
    ib.disconnect()
