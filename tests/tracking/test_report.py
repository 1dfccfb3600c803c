"""The report stands alone: no network, no script, escaped, labelled, the same bytes every time."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, date, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest

from config.clock import FixedClock
from config.errors import InputError, StorageError
from tests.tracking.samples import DIGEST, evidence, report_data
from tracking.charts import Line, drawdown_chart, growth_chart
from tracking.evidence import Finding
from tracking.gates import Gates, Waiver, evaluate, load_gates
from tracking.report import render_report, write_report
from tracking.report_data import Curve, Drift, HeatMap, ReportData, StrategyRow, finding_rows, gate_column, strategy_row

VOID = {"meta", "br", "wbr", "path", "line", "circle", "rect"}


class Outline(HTMLParser):
    """Collects tags and text, and checks that every element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def outline(html: str) -> Outline:
    parsed = Outline()
    parsed.feed(html)
    assert parsed.open == []
    return parsed


@pytest.fixture(scope="module")
def page() -> str:
    return render_report(report_data())


def test_nothing_in_it_points_outside_or_runs(page: str) -> None:
    parsed = outline(page)
    names = {tag for tag, _ in parsed.tags}
    assert not names & {"script", "link", "iframe", "img", "object", "embed"}
    targets = [value for _, attributes in parsed.tags for key, value in attributes.items() if key in ("href", "src", "xlink:href")]
    assert targets
    assert all(target is not None and target.startswith("#") for target in targets)
    assert "http" not in page
    assert "@import" not in page
    assert "url(" not in page


def test_every_link_of_the_menu_leads_to_a_part(page: str) -> None:
    parsed = outline(page)
    ids = [attributes["id"] for _, attributes in parsed.tags if "id" in attributes]
    targets = [str(attributes["href"])[1:] for tag, attributes in parsed.tags if tag == "a"]
    assert targets == ids
    assert len(ids) == 13


def test_equal_data_gives_equal_bytes_within_three_megabytes(page: str) -> None:
    assert render_report(report_data()) == page
    assert len(page.encode()) < 3_000_000


def test_modelled_data_is_labelled_wherever_it_appears(page: str) -> None:
    pills = page.count('<span class="pill modelled"')
    assert pills == 4  # strategy table, legend, gate column, data table
    assert re.search(r'class="line c0 modelled"', page)
    assert "are no evidence of profit" in page
    without = render_report(replace(report_data(), strategies=(), curves=(), gates=(), data_tables=()))
    assert 'class="pill modelled"' not in without
    assert "are no evidence of profit" not in without


def test_text_from_users_is_escaped_everywhere() -> None:
    nasty = "<script>alert(1)</script>\"'&"
    data = report_data()
    curves = tuple(replace(curve, name=nasty, group=nasty) for curve in data.curves)
    heat = replace(data.heat_maps[0], title=nasty, row_name=nasty, column_name=nasty, rows=(nasty,) * 20)
    drift = Drift(expected=1.0, achieved=2.0, parts={nasty: 1.0}, residual=0.0)
    full = replace(
        data,
        title=nasty,
        strategies=tuple(replace(row, name=nasty, symbols=nasty) for row in data.strategies),
        gates=tuple(replace(column, strategy=nasty) for column in data.gates),
        curves=curves,
        heat_maps=(heat,),
        drift=drift,
        summary=(nasty,),
    )
    assert "<script" not in render_report(full)
    assert nasty in outline(render_report(full)).text


def test_checks_values_and_verdicts_are_printed(page: str) -> None:
    text = outline(page).text
    for expected in ("✗ 0.62", "≥ 0.95", "✓ 46", "[0.21, 1.22]", "158.0 %", "−0.10", "every cent explained", "97,410.22", DIGEST):
        assert expected in text


def test_serious_findings_come_first(page: str) -> None:
    assert page.index('class="serious"') < page.index('class="warning"')


def test_a_waiver_is_shown_in_red_with_its_signature() -> None:
    waiver = Waiver(
        strategy="sma_crossover",
        spec_digest=DIGEST[:8],
        stage="paper",
        check="trades",
        who="A. Person",
        reason="yearly",
        expires=date(2026, 12, 1),
    )
    shown = evidence(trades=3)
    gates = Gates(stages=load_gates().stages, waivers=(waiver,))
    verdict = evaluate(shown, "paper", gates, clock=FixedClock(datetime(2026, 11, 20, tzinfo=UTC)))
    page = render_report(ReportData(title="t", strategies=(strategy_row(shown, verdict),), gates=(gate_column(verdict, "real"),)))
    text = outline(page).text
    assert "Waived: sma_crossover (trades)" in text
    assert "waived by A. Person until 2026-12-01: yearly" in text
    assert 'class="c waived"' in page
    assert '<li class="bad">' in page


def test_an_empty_report_leaves_its_parts_out() -> None:
    parsed = outline(render_report(ReportData(title="Nothing yet")))
    assert "section" not in {tag for tag, _ in parsed.tags}
    assert "Nothing yet" in parsed.text


def test_missing_and_odd_numbers_are_dashes() -> None:
    shown = evidence(dsr=None, sharpe=float("nan"), sharpe_interval=(float("nan"), float("nan")))
    verdict = evaluate(shown, "paper")
    text = outline(render_report(ReportData(title="t", strategies=(strategy_row(shown, verdict),)))).text
    assert "nan" not in text
    assert "–" in text


def test_an_unexplained_rest_is_shown_and_named() -> None:
    drift = Drift(expected=100.0, achieved=97.0, parts={"fees": -2.0}, residual=-1.0)
    text = outline(render_report(ReportData(title="t", drift=drift))).text
    assert "−1.00 USD unexplained" in text


def curve(days: tuple[str, ...], values: tuple[float, ...]) -> Curve:
    return Curve(name="broken", days=days, values=values)


@pytest.mark.parametrize(
    "bad",
    [
        curve(("2020-01-01",), (1.0,)),
        curve(("2020-01-01", "2020-01-02"), (1.0, 0.0)),
        curve(("2020-01-01", "2020-01-02"), (1.0, float("nan"))),
        curve(("2020-01-02", "2020-01-01"), (1.0, 2.0)),
        curve(("2020-01-01", "2020-01-02"), (1.0,)),
    ],
)
def test_a_curve_that_is_none_is_refused_by_name(bad: Curve) -> None:
    with pytest.raises(InputError, match="'broken' cannot be drawn"):
        render_report(ReportData(title="t", curves=(bad,)))


def test_a_heat_map_with_the_wrong_shape_is_refused() -> None:
    bad = HeatMap(title="h", row_name="r", column_name="c", rows=("1", "2"), columns=("1",), values=((1.0,),))
    with pytest.raises(InputError, match="1 rows of values for 2 × 1"):
        render_report(ReportData(title="t", heat_maps=(bad,)))


def test_a_large_search_is_shown_in_medians_and_stays_small() -> None:
    side = 150
    values = tuple(tuple(float(r * side + c) for c in range(side)) for r in range(side))
    names = tuple(str(n) for n in range(side))
    big = HeatMap(title="h", row_name="r", column_name="c", rows=names, columns=names, values=values, chosen=(149, 149))
    page = render_report(ReportData(title="t", heat_maps=(big,)))
    assert page.count('<rect class="gain"') == 50 * 50  # blocks of 3 × 3
    assert "the median of 3 × 3" in page


def test_no_peak_is_lost_when_a_long_curve_is_thinned() -> None:
    days = tuple(date.fromordinal(date(1990, 1, 1).toordinal() + n).isoformat() for n in range(9000))
    flat = [100.0] * 9000
    flat[4321] = 1.0
    drawn = drawdown_chart([Line(days, flat, "c0")], "d")
    depths = [float(y) for y in re.findall(r" (\d+\.\d)(?=L|\")", drawn.split('class="line')[1])]
    assert max(depths) == pytest.approx(162.0)  # the chart's floor: 190 high less 28 for the axis
    assert len(depths) < 3 * 700
    grown = growth_chart([Line(days[:300], [100.0 * 1.001**n for n in range(300)], "c0")], "g")
    assert "× 1.2" in grown


def test_the_report_is_put_in_place_whole_or_not_at_all(tmp_path: Path) -> None:
    path = write_report(report_data(), tmp_path / "reports" / "demo.html")
    assert [one.name for one in path.parent.iterdir()] == ["demo.html"]
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write the report"):
        write_report(report_data(), tmp_path / "file" / "demo.html")


def test_findings_are_ordered_by_severity() -> None:
    mixed = tuple(Finding(code=kind, severity=kind, text="t", remedy="r") for kind in ("note", "serious", "warning"))
    assert [row.severity for row in finding_rows(evidence(findings=mixed))] == ["serious", "warning", "note"]


def test_the_interval_says_its_level_and_each_number_its_sample() -> None:
    html = render_report(
        ReportData(title="x", interval_level=0.9, strategies=(StrategyRow(name="one", sharpe=0.5, sessions=5030),))
    )
    assert "bootstrap interval (90 %)" in html
    assert "5,030 sessions" in outline(html).text
