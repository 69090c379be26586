"""Parts that many pages use: tables whose digits are in step, and charts that all have the same looks."""

from pathlib import Path

import altair as alt
import pandas as pd

from ablation_core.report.charts.chart_cache import whole_spec
from ablation_core.ui.widgets import with_digits

ROOT = Path(__file__).parents[2]


def test_a_tables_numbers_are_in_step_and_stay_numbers() -> None:
    frame = pd.DataFrame({"share": [0.3, 0.297], "change": [-1.5, 0.25], "words": ["a", "b"]})
    table = with_digits(frame, {"share": ".1%", "change": "+.2f", "absent": ".0f"})
    shown = table.to_html()
    assert all(text in shown for text in (">30.0%<", ">29.7%<", ">−1.50<", ">+0.25<", ">a<"))
    pd.testing.assert_frame_equal(table.data, frame)


def test_a_chart_drawn_once_has_its_data_beside_its_structure() -> None:
    points, line = pd.DataFrame({"x": [1.0], "y": [2.0]}), pd.DataFrame({"x": [0.0, 3.0], "y": [0.0, 3.0]})
    chart = alt.Chart(points).mark_point().encode(x="x:Q", y="y:Q") + alt.Chart(line).mark_line().encode(
        x="x:Q", y="y:Q"
    )
    spec = whole_spec(chart)
    drawn = [spec["datasets"][layer["data"]["name"]] for layer in spec["layer"]]
    pd.testing.assert_frame_equal(drawn[0], points)
    pd.testing.assert_frame_equal(drawn[1], line)


def test_every_chart_is_drawn_with_the_looks_of_all() -> None:
    """Streamlit's own grey of axes is too pale: no page or part draws a chart past `widgets`."""
    pages = [ROOT / "app.py", *(ROOT / "pages").glob("*.py"), *(ROOT / "ablation_core" / "ui").rglob("*.py")]
    own = [path for path in pages if "altair_chart(" in path.read_text() or "vega_lite_chart(" in path.read_text()]
    assert [path.name for path in own] == ["widgets.py", "shown.py"], "the second draws a chart that nobody sees"
