"""`quant demo` end to end, as a newcomer types it: what it prints, and what it leaves behind."""

from __future__ import annotations

import hashlib
import importlib.util
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from execution.journal import Journal
from tests.flows.demo_home import Demo, Said, quant

pytestmark = pytest.mark.xdist_group("demo")


def strategy(document: dict[str, Any], name: str) -> dict[str, Any]:
    """One entry of the list of strategies."""
    return next(entry for entry in document["strategies"] if entry["name"] == name)


def test_it_prints_one_object_with_every_promised_field(demo: Demo) -> None:
    _, document = demo
    promised = {"snapshot_id", "data", "features", "trials", "strategies", "orders", "drift", "report", "tracking_uri", "seconds"}
    assert promised <= set(document)
    of_strategy = {
        "name", "data_kind", "total_return", "cagr", "sharpe", "sharpe_interval", "max_drawdown", "trades", "dsr", "pbo", "verdict",
        "failed_checks",
    }  # fmt: skip
    for entry in document["strategies"]:
        assert of_strategy <= set(entry)
        low, high = entry["sharpe_interval"]
        assert low < entry["sharpe"] < high
        assert entry["verdict"] in {"promoted", "refused", "baseline"}
        assert bool(entry["failed_checks"]) or entry["verdict"] != "refused"
    assert {"id", "symbol", "side", "quantity", "price", "session"} <= set(document["orders"][0])
    assert set(document["drift"]) == {"expected", "achieved", "parts", "residual"}


def test_it_holds_the_bundled_data_whole(demo: Demo) -> None:
    _, document = demo
    # 5,031 sessions of two indices (arch) and 8,313 of twenty stocks (skfolio), counted in their files.
    assert document["data"]["equity_bars"] == 2 * 5031 + 20 * 8313
    # WTI 8,611, VIX 1,305, core CPI 743, AAA and BAA 1,200 each.
    assert document["data"]["macro_observations"] == 8611 + 1305 + 743 + 2 * 1200
    assert 25 <= document["features"] <= 40


def test_its_numbers_are_the_published_ones_of_the_reference_convention(demo: Demo) -> None:
    _, document = demo
    hold, cross = strategy(document, "buy_and_hold"), strategy(document, "sma_crossover")
    assert hold["total_return"] == pytest.approx(300094.596971 / 100_000 - 1, abs=1e-11)
    assert hold["sharpe"] == pytest.approx(0.3439471908, abs=1e-10)
    assert hold["max_drawdown"] == pytest.approx(0.7793238629, abs=1e-10)
    assert cross["total_return"] == pytest.approx(257842.817736 / 100_000 - 1, abs=1e-11)
    assert (cross["sharpe"], cross["trades"]) == (pytest.approx(0.3834865421, abs=1e-10), 46)
    assert strategy(document, "sma_search_best")["sharpe"] == pytest.approx(0.589913, abs=5e-7)


def test_the_overfitted_search_is_refused_for_being_lucky_and_every_try_was_counted(demo: Demo) -> None:
    _, document = demo
    lucky = strategy(document, "sma_search_best")
    assert lucky["verdict"] == "refused"
    assert {"dsr", "pbo"} <= set(lucky["failed_checks"])
    assert lucky["trials"] >= 253  # the grid alone
    assert document["trials"] > lucky["trials"]


def test_the_modelled_chain_is_labelled_and_refused_for_it(demo: Demo) -> None:
    _, document = demo
    modelled = strategy(document, "covered_calls")
    assert modelled["data_kind"] == "modelled"
    assert modelled["verdict"] == "refused"
    assert "data_kind" in modelled["failed_checks"]
    assert all(entry["data_kind"] == "real" for entry in document["strategies"] if entry["name"] != "covered_calls")


def test_what_is_on_paper_passed_the_gate_or_is_the_baseline(demo: Demo) -> None:
    _, document = demo
    traded = strategy(document, document["paper_strategy"])
    promoted = [entry["name"] for entry in document["strategies"] if entry["verdict"] == "promoted"]
    assert traded["verdict"] == ("promoted" if promoted else "baseline")


def test_the_drift_is_explained_to_the_cent(demo: Demo) -> None:
    _, document = demo
    drift = document["drift"]
    assert drift["residual"] == 0.0
    assert drift["expected"] + sum(drift["parts"].values()) == pytest.approx(drift["achieved"], abs=0.005)
    bought = document["orders"][0]
    # 100,000 all in at the open of the first session with slippage: cash / (fill × 1.001).
    assert bought["quantity"] * bought["price"] * 1.001 == pytest.approx(100_000, abs=0.01)


def test_an_order_is_traced_to_the_file_it_came_from(demo: Demo) -> None:
    home, document = demo
    said = quant(home, "explain", document["orders"][0]["id"], "--json")
    assert said.code == 0, said.err
    chain = said.document["chain"]
    kinds = [link["kind"] for link in chain]
    assert kinds[:6] == ["order", "plan", "strategy_version", "run", "feature_set", "snapshot"]
    assert kinds[6:] == ["ingest", "source"] * (len(kinds[6:]) // 2)
    assert all(len(link["hash"]) == 64 for link in chain)
    spec = importlib.util.find_spec("arch")
    assert spec is not None
    assert spec.origin is not None
    content = (Path(spec.origin).parent / "data" / "nasdaq" / "nasdaq.csv.gz").read_bytes()
    sources = [link for link in chain if link["kind"] == "source" and "nasdaq" in link["id"]]
    assert [link["hash"] for link in sources] == [hashlib.sha256(content).hexdigest()]


def test_a_changed_byte_in_a_kept_answer_breaks_the_chain(demo: Demo) -> None:
    home, document = demo
    chain = quant(home, "explain", document["orders"][0]["id"], "--json").document["chain"]
    kept = next((home / "lake" / "raw").glob(f"**/*{chain[-1]['hash'][2:]}*"))
    content = kept.read_bytes()
    kept.chmod(0o644)
    kept.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        said = quant(home, "explain", document["orders"][0]["id"], "--json")
        assert said.code == 3
        assert said.document["error"]["kind"] == "IntegrityError"
    finally:
        kept.write_bytes(content)


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]


def test_the_report_is_one_file_that_needs_no_network(demo: Demo) -> None:
    _, document = demo
    page = Path(document["report"]).read_text(encoding="utf-8")
    links = _Links()
    links.feed(page)
    assert [address for address in links.addresses if address.startswith(("http:", "https:", "//"))] == []
    assert "@import" not in page
    for needed in ("buy_and_hold", "sma_search_best", "modelled", document["orders"][0]["id"], document["snapshot_id"], "refused"):
        assert needed in page
    assert len(page) < 3_000_000


def test_run_again_it_gives_the_same_numbers_sends_nothing_twice_and_says_what_it_reused(demo: Demo) -> None:
    home, document = demo
    again = quant(home, "demo", "--json")
    assert again.code == 0, again.err
    second = again.document
    for field in ("snapshot_id", "data", "features", "trials", "strategies", "orders", "drift", "lineage"):
        if field == "data":  # one row an ingest is added to the record of ingests
            bookkeeping = {"ingest_runs"}
            assert {k: v for k, v in second[field].items() if k not in bookkeeping} == {
                k: v for k, v in document[field].items() if k not in bookkeeping
            }
        else:
            assert second[field] == document[field], field
    assert any("paper orders" in what for what in second["reused"])
    assert sum(what.startswith("run of") for what in second["reused"]) == len(document["strategies"])


@pytest.mark.parametrize(
    "words",
    [
        ("data", "ls"),
        ("data", "check"),
        ("data", "verify"),
        ("data", "show", "macro_observations", "--symbols", "VIXCLS", "--as-of", "2014-02-01T00:00:00+00:00"),
        ("data", "sql", "select symbol, count(*) as rows from equity_bars group by all order by all"),
        ("features", "ls"),
        ("features", "check", "--cuts", "2"),
        ("strategy", "ls"),
        ("strategy", "check", "combo", "--cuts", "2"),
        ("history",),
        ("compare", "demo"),
        ("parity", "sma_crossover"),
        ("trade", "buy_and_hold"),
    ],
    ids=" ".join,
)
def test_every_verb_answers_with_one_object_after_the_demo(demo: Demo, words: tuple[str, ...]) -> None:
    home, _ = demo
    said = quant(home, *words, "--json")
    assert said.code == 0, said.err
    assert said.document


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (("features", "ls"), "rsi_14"),
        (("strategy", "ls"), "bollinger_reversion"),
        (("data", "check"), "quarantine"),
        (("compare", "demo"), "combo"),
    ],
    ids=str,
)
def test_for_people_it_prints_a_table(demo: Demo, words: tuple[str, ...], shown: str) -> None:
    home, _ = demo
    said = quant(home, *words)
    assert said.code == 0, said.err
    assert shown in said.out


def test_the_gate_refuses_on_request_with_its_own_exit_code(demo: Demo) -> None:
    home, _ = demo
    said = quant(home, "promote", "sma_crossover", "--json")
    assert said.code == 4
    failed = [check["name"] for check in said.document["checks"] if not check["passed"]]
    assert "dsr" in failed
    forced: Said = quant(home, "promote", "sma_crossover", "--yes", "--who", "a test", "--json")
    assert forced.code == 4
    assert forced.document["error"]["kind"] == "GateRefused"


def test_a_backtest_from_the_command_line_agrees_with_the_reference_on_both_engines(demo: Demo) -> None:
    home, _ = demo
    words = ("--symbols", "NASDAQ", "--set", "fast=20", "--set", "slow=50", "--convention", "reference", "--json")
    vector = quant(home, "backtest", "sma_crossover", "--engine", "vector", *words).document
    event = quant(home, "backtest", "sma_crossover", "--engine", "event", *words).document
    for found in (vector, event):
        assert found["final_equity"] == pytest.approx(257842.817736, abs=1e-6)
        assert found["sharpe"] == pytest.approx(0.3834865421, abs=1e-10)
        assert found["max_drawdown"] == pytest.approx(0.5339133010, abs=1e-10)
        assert found["trades"] == found["closed_trades"] == 46
    assert vector["orders_hash"] == event["orders_hash"]


def test_a_halt_is_latched_and_lifted_from_the_command_line_with_its_reason(demo: Demo) -> None:
    home, document = demo
    (folder,) = (home / "execution").glob(f"paper-{document['paper_strategy']}-*")
    account = folder.name

    def latched() -> str | None:
        with Journal.read(folder) as journal:
            return journal.halted.reason if journal.halted else None

    assert quant(home, "halt", account, "--reason", "a test").code == 0
    assert latched() == "a test"
    assert quant(home, "resume", account, "--reason", "the test is over").code == 0
    assert latched() is None
    said = quant(home, "halt", "nobody", "--reason", "a test", "--json")
    assert said.code == 1
    assert account in said.document["error"]["remedy"]
