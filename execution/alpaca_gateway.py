"""Alpaca as a `Broker`: alpaca-py's own client, made safe (a timeout, no retries of its own, quantities as text).

What alpaca-py 0.44 does and this undoes: it has no HTTP timeout (`_session` gets one); it repeats a POST on 429 and 504 by itself
(switched off; order management asks by id instead); it puts quantities on the wire as floats (text goes through `post`); its
`APIError.code` fails on an HTML body (`_refusal_of` reads the body itself, and only JSON counts as Alpaca's own answer).

Readings raise `ServiceUnavailable` for anything that is not an answer; see `execution.broker`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, cast
from zoneinfo import ZoneInfo

from config.errors import ConfigError, InputError, RateLimited, ServiceUnavailable
from config.settings import Settings
from execution.hours import ExchangeHours, MarketHours
from execution.orders import Account, Fill, MarketClock, OrderRequest, OrderState, Position, Side, Status

if TYPE_CHECKING:
    from alpaca.trading.client import TradingClient

__all__ = ["AlpacaBroker", "connect_alpaca"]

_NEW_YORK = ZoneInfo("America/New_York")
_PAGE, _MOST_OPEN = 100, 500
_WORKING = frozenset(
    {
        "new",
        "accepted",
        "pending_new",
        "accepted_for_bidding",
        "held",
        "pending_cancel",
        "pending_replace",
        "stopped",
        "suspended",
        "calculated",
        "done_for_day",
    }
)
_DONE: dict[str, Status] = {
    "filled": "filled",
    "canceled": "canceled",
    "replaced": "canceled",
    "expired": "expired",
    "rejected": "rejected",
    "partially_filled": "partially_filled",
}


def connect_alpaca(settings: Settings, *, hours: MarketHours | None = None) -> AlpacaBroker:
    """Make the gateway from settings; nothing is asked of Alpaca yet.

    Raises
    ------
    ConfigError
        A key is missing; the message names the environment's variables and shows no value.
    """
    missing = [
        name
        for name, key in (
            ("ALPACA_API_KEY", settings.credentials.alpaca),
            ("ALPACA_API_SECRET", settings.credentials.alpaca_secret),
        )
        if key is None or not key.get_secret_value()
    ]
    if missing or settings.credentials.alpaca is None or settings.credentials.alpaca_secret is None:
        raise ConfigError(
            f"execution.gateway is alpaca, and {' and '.join(missing)} is not set",
            remedy="set them in the environment, or use execution.gateway: simulated, which needs none",
        )
    from alpaca.trading.client import TradingClient

    client = TradingClient(
        api_key=settings.credentials.alpaca.get_secret_value(),
        secret_key=settings.credentials.alpaca_secret.get_secret_value(),
        paper=True,
        raw_data=True,
        url_override=settings.execution.alpaca_url or None,
    )
    return AlpacaBroker(client, timeout_seconds=settings.execution.timeout_seconds, hours=hours)


class AlpacaBroker:
    """A paper account at Alpaca; keeps `execution.broker.Broker`.

    Parameters
    ----------
    client : alpaca.trading.client.TradingClient
        With ``raw_data=True``; its session and retries are taken over.
    timeout_seconds : float
        For connecting, and for each wait for an answer.
    """

    gateway = "alpaca"

    def __init__(self, client: TradingClient, *, timeout_seconds: float, hours: MarketHours | None = None) -> None:
        session = client._session
        session.request = functools.partial(session.request, timeout=timeout_seconds)  # type: ignore[method-assign]
        client._retry = 0
        self._client = client
        self._hours: MarketHours = hours if hours is not None else ExchangeHours()
        self._client_ids: dict[str, str] = {}

    def account(self) -> Account:
        """The account. Paper accounts have numbers that begin with PA; that, not the address, decides the mode."""
        found = _record(self._read("/account"), "account")
        number = _text(found, "account_number")
        blocked = [name for name in ("trading_blocked", "account_blocked", "trade_suspended_by_user") if found.get(name)]
        return Account(
            account_id=number,
            gateway=self.gateway,
            mode="paper" if number.startswith("PA") else "live",
            cash=_decimal(found, "cash"),
            equity=_decimal(found, "equity"),
            buying_power=_decimal(found, "buying_power"),
            multiplier=_decimal(found, "multiplier"),
            trading_blocked=bool(blocked) or _text(found, "status") != "ACTIVE",
        )

    def positions(self) -> tuple[Position, ...]:
        """What is held; short positions negative."""
        found = [_position(item) for item in _records(self._read("/positions"), "positions")]
        return tuple(sorted(found, key=lambda position: position.symbol))

    def open_orders(self) -> tuple[OrderState, ...]:
        """The working orders, oldest first."""
        query = {"status": "open", "limit": _MOST_OPEN, "direction": "asc", "nested": "false"}
        found = _records(self._read("/orders", query), "orders")
        if len(found) >= _MOST_OPEN:
            raise ServiceUnavailable(f"Alpaca lists {len(found)} open orders, there may be more than one answer holds")
        return tuple(_order(item) for item in found)

    def order_by_client_id(self, client_order_id: str) -> OrderState | None:
        """The order with our id; None only on Alpaca's own 404."""
        try:
            found = self._call(
                lambda: self._client.get("/orders:by_client_order_id", {"client_order_id": client_order_id}), "GET /orders by id"
            )
        except _Refused as refusal:
            if refusal.status == 404:
                return None
            raise ServiceUnavailable(f"Alpaca refuses to say whether order {client_order_id} exists: {refusal}") from refusal
        return _order(_record(found, "order"))

    def submit(self, request: OrderRequest) -> OrderState:
        """Send an order once. A refusal in Alpaca's own words is a rejection; anything else unreadable is not known."""
        if request.order_type != "market":
            raise InputError(f"{request.symbol}: {request.order_type} orders are not sent to Alpaca yet, only market orders are")
        body = {
            "symbol": request.symbol,
            "qty": _quantity_text(request.quantity),
            "side": request.side,
            "type": "market",
            "time_in_force": request.time_in_force,
            "client_order_id": request.client_order_id,
        }
        try:
            return _order(_record(self._call(lambda: self._client.post("/orders", body), "POST /orders"), "order"))
        except _Refused as refusal:
            if "client_order_id" in str(refusal):  # it is there already: a resend of what had arrived
                known = self.order_by_client_id(request.client_order_id)
                if known is not None:
                    return known
            return _rejection(request, refusal)

    def cancel(self, client_order_id: str) -> None:
        """Ask for a cancellation; Alpaca's 422 means that the order is done already."""
        found = self._read("/orders:by_client_order_id", {"client_order_id": client_order_id})
        name = _text(_record(found, "order"), "id")
        try:
            self._call(lambda: self._client.delete(f"/orders/{name}"), f"DELETE /orders/{name}")
        except _Refused as refusal:
            if refusal.status != 422:
                raise ServiceUnavailable(f"Alpaca refuses to cancel order {client_order_id}: {refusal}") from refusal

    def fills(self, since: datetime | None) -> tuple[Fill, ...]:
        """Executions at or after `since`, from the account's activities, oldest first.

        Notes
        -----
        Alpaca books regulatory fees as activities of their own at the end of the day; a fill's fee is nought here.
        """
        query: dict[str, Any] = {"direction": "asc", "page_size": _PAGE}
        if since is not None:
            query["after"] = since.isoformat()
        found: list[Mapping[str, Any]] = []
        while True:
            page = _records(self._read("/account/activities/FILL", query), "activities")
            found.extend(page)
            if len(page) < _PAGE:
                return tuple(self._fill(item) for item in found)
            query = {**query, "page_token": _text(page[-1], "id")}

    def clock(self) -> MarketClock:
        """Alpaca's clock."""
        found = _record(self._read("/clock"), "clock")
        at = _moment(found, "timestamp")
        if not isinstance(found.get("is_open"), bool):
            raise ServiceUnavailable(f"Alpaca's clock does not say whether the market is open: {found}")
        return MarketClock(at=at, is_open=found["is_open"], previous_close=self._hours.previous_close(at))

    def _fill(self, item: Mapping[str, Any]) -> Fill:
        at, side = _moment(item, "transaction_time"), _text(item, "side")
        return Fill(
            execution_id=_text(item, "id"),
            client_order_id=self._client_id(_text(item, "order_id")),
            symbol=_text(item, "symbol"),
            side="buy" if side == "buy" else "sell",  # sell_short is a sale too
            quantity=abs(_decimal(item, "qty")),
            price=_decimal(item, "price"),
            fee=Decimal(0),
            at=at,
            session=at.astimezone(_NEW_YORK).date(),
        )

    def _client_id(self, order_id: str) -> str:
        if order_id not in self._client_ids:
            self._client_ids[order_id] = _text(_record(self._read(f"/orders/{order_id}"), "order"), "client_order_id")
        return self._client_ids[order_id]

    def _read(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        try:
            return self._call(lambda: self._client.get(path, dict(query or {})), f"GET {path}")
        except _Refused as refusal:
            raise ServiceUnavailable(f"Alpaca refuses GET {path}: {refusal}") from refusal

    def _call(self, request: Callable[[], Any], what: str) -> Any:
        """Run one request of alpaca-py and word its failure in our own tree."""
        from alpaca.common.exceptions import APIError
        from requests.exceptions import RequestException

        try:
            return request()
        except APIError as problem:
            raise _refusal_of(problem, what) from problem
        except RequestException as problem:
            raise ServiceUnavailable(f"Alpaca gave no answer to {what}: {type(problem).__name__}") from problem


class _Refused(Exception):
    """Alpaca's own refusal, in JSON. It does not leave this module."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


def _refusal_of(problem: Any, what: str) -> Exception:
    status = int(problem.status_code or 0)
    response = problem.response
    if status == 429:
        header = response.headers.get("Retry-After", "") if response is not None else ""
        wait = float(header) if header.replace(".", "", 1).isdigit() else None
        return RateLimited(f"Alpaca asks to wait ({what}: 429)", retry_after_seconds=wait)
    try:
        body = json.loads(str(problem))
    except ValueError:
        body = None
    if status == 401 or (status == 403 and what.startswith("GET")):
        return ConfigError(
            f"Alpaca refuses the keys ({what}: {status})",
            remedy="check ALPACA_API_KEY and ALPACA_API_SECRET: paper keys are their own",
        )
    if status >= 500 or not isinstance(body, dict) or "message" not in body:
        return ServiceUnavailable(f"Alpaca answered {what} with {status} and no reason of its own")
    return _Refused(f"{body['message']} ({status}, code {body.get('code', 'none')})", status=status)


def _rejection(request: OrderRequest, refusal: _Refused) -> OrderState:
    return OrderState(
        client_order_id=request.client_order_id,
        order_id="",
        symbol=request.symbol,
        side=request.side,
        quantity=request.quantity,
        filled_quantity=Decimal(0),
        status="rejected",
        reason=str(refusal),
    )


def _quantity_text(quantity: Decimal) -> str:
    whole = quantity == quantity.to_integral_value()
    return f"{quantity:.0f}" if whole else f"{quantity:.9f}"


def _order(found: Mapping[str, Any]) -> OrderState:
    said = _text(found, "status")
    filled = _decimal(found, "filled_qty")
    if said in _WORKING:
        status: Status = "partially_filled" if filled > 0 else "accepted"
    elif said in _DONE:
        status = _DONE[said]
    else:
        raise ServiceUnavailable(f"Alpaca gives order {found.get('id')} a status that is not known here: {said!r}")
    return OrderState(
        client_order_id=_text(found, "client_order_id"),
        order_id=_text(found, "id"),
        symbol=_text(found, "symbol"),
        side=cast("Side", _text(found, "side")),
        quantity=_decimal(found, "qty") if found.get("qty") is not None else filled,  # an order by notional has no quantity
        filled_quantity=filled,
        status=status,
        reason="" if status in ("accepted", "partially_filled", "filled") else said,
    )


def _position(found: Mapping[str, Any]) -> Position:
    side = _text(found, "side")
    if side not in ("long", "short"):
        raise ServiceUnavailable(f"Alpaca gives a position the side {side!r}")
    quantity = abs(_decimal(found, "qty"))
    return Position(
        symbol=_text(found, "symbol"),
        quantity=quantity if side == "long" else -quantity,
        average_price=_decimal(found, "avg_entry_price"),
    )


def _record(found: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(found, dict):
        raise ServiceUnavailable(f"Alpaca's {what} is not an object but {type(found).__name__}")
    return found


def _records(found: Any, what: str) -> Sequence[Mapping[str, Any]]:
    if not isinstance(found, list):
        raise ServiceUnavailable(f"Alpaca's {what} are not a list but {type(found).__name__}; that is not an empty list")
    return [_record(item, what) for item in found]


def _text(found: Mapping[str, Any], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str) or not value:
        raise ServiceUnavailable(f"Alpaca's answer lacks {name}: it holds {', '.join(sorted(found)) or 'nothing'}")
    return value


def _decimal(found: Mapping[str, Any], name: str) -> Decimal:
    value = found.get(name)
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise ServiceUnavailable(f"Alpaca's {name} is not a number: {value!r}") from None
    if not number.is_finite():
        raise ServiceUnavailable(f"Alpaca's {name} is not a number: {value!r}")
    return number


def _moment(found: Mapping[str, Any], name: str) -> datetime:
    from datetime import UTC

    try:
        moment = datetime.fromisoformat(_text(found, name))
    except ValueError:
        raise ServiceUnavailable(f"Alpaca's {name} is not a moment: {found.get(name)!r}") from None
    if moment.tzinfo is None:
        raise ServiceUnavailable(f"Alpaca's {name} has no time zone: {found.get(name)!r}")
    return moment.astimezone(UTC)
