"""A loopback server that speaks the part of Alpaca's trading REST that is used, with a queue of faults; it fills at once."""

from __future__ import annotations

import json
import threading
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

NOW = "2026-11-20T15:00:00Z"


@dataclass
class FakeAlpaca:
    """The service's state, in Alpaca's own terms. `faults` are met by requests of their method and path, in order."""

    number: str = "PA3TEST00001"
    cash: Decimal = Decimal(100_000)
    multiplier: int = 2
    prices: dict[str, Decimal] = field(default_factory=lambda: {"SPY": Decimal(500), "QQQ": Decimal(400), "TLT": Decimal(100)})
    held: dict[str, Decimal] = field(default_factory=dict)
    orders: list[dict[str, Any]] = field(default_factory=list)
    activities: list[dict[str, Any]] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    faults: deque[tuple[str, str, str]] = field(default_factory=deque)
    always: dict[tuple[str, str], str] = field(default_factory=dict)
    account_extra: dict[str, Any] = field(default_factory=dict)
    is_open: bool = True
    unlisted: int = 0
    slow: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    over: threading.Event = field(default_factory=threading.Event)

    def settle(self, order: dict[str, Any]) -> None:
        """Fill an order."""
        quantity, price = Decimal(order["qty"]), self.prices[order["symbol"]]
        order |= {"status": "filled", "filled_qty": order["qty"], "filled_avg_price": str(price)}
        change = quantity if order["side"] == "buy" else -quantity
        self.cash -= change * price
        self.held[order["symbol"]] = self.held.get(order["symbol"], Decimal(0)) + change
        if self.held[order["symbol"]] == 0:
            del self.held[order["symbol"]]
        self.activities.append(
            {
                "id": f"20261120100000000::{len(self.activities):04d}",
                "activity_type": "FILL",
                "type": "fill",
                "transaction_time": NOW,
                "price": str(price),
                "qty": order["qty"],
                "side": order["side"],
                "symbol": order["symbol"],
                "order_id": order["id"],
            }
        )

    def equity(self) -> Decimal:
        return self.cash + sum((q * self.prices[s] for s, q in self.held.items()), Decimal(0))

    def fault(self, method: str, path: str) -> str | None:
        """The fault that waits for this request, if one does."""
        if (method, path) in self.always:
            return self.always[method, path]
        if self.faults and self.faults[0][:2] == (method, path):
            return self.faults.popleft()[2]
        return None

    def take(self, body: dict[str, Any]) -> tuple[int, Any]:
        """POST /orders."""
        self.bodies.append(body)
        if any(order["client_order_id"] == body["client_order_id"] for order in self.orders):
            return 422, {"code": 40010001, "message": "client_order_id must be unique"}
        quantity = Decimal(body["qty"])
        price = self.prices[body["symbol"]]
        gross = sum((abs(q) * self.prices[s] for s, q in self.held.items()), Decimal(0))
        if body["side"] == "buy" and gross + quantity * price > self.multiplier * self.equity():
            return 403, {"code": 40310000, "message": "insufficient buying power"}
        order = {
            "id": str(uuid.uuid5(uuid.NAMESPACE_OID, str(len(self.orders)))),
            "client_order_id": body["client_order_id"],
            "symbol": body["symbol"],
            "side": body["side"],
            "qty": body["qty"],
            "filled_qty": "0",
            "status": "new",
            "type": "market",
            "time_in_force": body["time_in_force"],
        }
        self.orders.append(order)
        if body["side"] == "sell" and self.slow:
            return 200, dict(order)
        self.settle(order)
        return 200, order

    def read(self, path: str, query: dict[str, str]) -> tuple[int, Any]:
        """GET."""
        if path == "/v2/account":
            told = {"id": "x", "account_number": self.number, "status": "ACTIVE", "currency": "USD", "cash": str(self.cash)}
            power = self.multiplier * self.equity() - (self.equity() - self.cash)
            told |= {"equity": str(self.equity()), "buying_power": str(power), "multiplier": str(self.multiplier)}
            return 200, {**told, "trading_blocked": False, "account_blocked": False, **self.account_extra}
        if path == "/v2/positions":
            return 200, [
                {"symbol": s, "qty": str(q), "side": "long" if q > 0 else "short", "avg_entry_price": "1"}
                for s, q in self.held.items()
            ]
        if path == "/v2/orders":
            return 200, [order for order in self.orders if order["status"] in ("new", "accepted", "partially_filled")]
        if path == "/v2/orders:by_client_order_id":
            found = [order for order in self.orders if order["client_order_id"] == query["client_order_id"]]
            if found and found[0]["status"] == "new" and self.slow:
                self.slow -= 1
                if not self.slow:
                    self.settle(found[0])
            return (200, found[0]) if found else (404, {"code": 40410000, "message": "order not found"})
        if path.startswith("/v2/orders/"):
            return 200, next(order for order in self.orders if path.endswith(order["id"]))
        if path == "/v2/account/activities/FILL" and self.activities and self.unlisted:
            self.unlisted -= 1
            return 200, []
        if path == "/v2/account/activities/FILL":
            start = query.get("page_token")
            later = [a for a in self.activities if start is None or a["id"] > start]
            return 200, later[: int(query["page_size"])]
        if path == "/v2/clock":
            return 200, {"timestamp": "2026-11-20T10:00:00.123456789-05:00", "is_open": self.is_open}
        return 404, {"code": 40410000, "message": "endpoint not found"}

    def delete(self, path: str) -> tuple[int, Any]:
        """DELETE /orders/{id}."""
        order = next(order for order in self.orders if path.endswith(order["id"]))
        if order["status"] not in ("new", "accepted"):
            return 422, {"code": 42210000, "message": "order is not cancelable"}
        order["status"] = "canceled"
        return 204, None


@contextmanager
def serve(state: FakeAlpaca) -> Iterator[str]:
    """Run the server; its address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            """Keep silent."""

        def do_GET(self) -> None:
            self._serve("GET")

        def do_POST(self) -> None:
            self._serve("POST")

        def do_DELETE(self) -> None:
            self._serve("DELETE")

        def _serve(self, method: str) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            raw = self.rfile.read(length)
            with state.lock:
                state.requests.append(f"{method} {parts.path}")
                fault = state.fault(method, parts.path)
                if fault in ("lost_before", "429", "504", "html", "503", "401", "json", "empty"):
                    answer = None
                elif method == "POST":
                    answer = state.take(json.loads(raw))
                elif method == "DELETE":
                    answer = state.delete(parts.path)
                else:
                    answer = state.read(parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()})
            if fault == "hang":
                state.over.wait(180)
            if fault in ("lost_before", "lost_after", "hang"):
                self.close_connection = True
                return
            if answer is not None:
                self._send(answer[0], "" if answer[1] is None else json.dumps(answer[1]))
            else:
                self._fault(str(fault))

        def _fault(self, fault: str) -> None:
            answers = {
                "429": (429, '{"message": "too many requests"}'),
                "504": (504, "<html>gateway timeout</html>"),
                "503": (503, '{"message": "service unavailable"}'),
                "401": (401, '{"code": 40110000, "message": "request is not authorized"}'),
                "html": (404, "<html>captive portal</html>"),
                "json": (200, "{half a record"),
                "empty": (200, ""),
            }
            self._send(*answers[fault])

        def _send(self, status: int, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        state.over.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
