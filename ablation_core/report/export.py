"""Charts as PNG and SVG, tables as CSV and JSON, each with its provenance.

Pictures are drawn by vl-convert, in this process and without a network. A CSV begins with its provenance in lines that
start with `# `; pandas reads it with `comment="#"`.
"""

import json
import math
import platform
import re
from importlib.metadata import PackageNotFoundError, version

import altair as alt
import pandas as pd
import vl_convert

from ablation_core.activations.statistics import Statistics
from ablation_core.experiments.results import AblationResult
from ablation_core.models.info import ModelInfo
from ablation_core.storage import project_version

PICTURE_WIDTH = 720
_VEGALITE = ".".join(alt.VEGALITE_VERSION.split(".")[:2])
_CONFIG = {"background": "white", "font": "sans-serif", "view": {"stroke": None}, "axis": {"gridColor": "#e4e8ec"}}
_PACKAGES = ("torch", "transformers", "timm", "numpy")


def to_svg(chart: alt.TopLevelMixin, title: str, alternative: str) -> str:
    """A chart as an SVG drawing on white.

    Args:
        title: stands above it.
        alternative: what it shows, for those who cannot see it.
    """
    return vl_convert.vegalite_to_svg(_specification(chart, title, alternative), _VEGALITE, allowed_base_urls=[])


def to_png(chart: alt.TopLevelMixin, title: str, alternative: str) -> bytes:
    """A chart as a PNG picture on white, two pixels per point."""
    specification = _specification(chart, title, alternative)
    return vl_convert.vegalite_to_png(specification, _VEGALITE, scale=2, allowed_base_urls=[])


def _specification(chart: alt.TopLevelMixin, title: str, alternative: str) -> dict:
    chart = chart.properties(width=PICTURE_WIDTH, title=alt.Title(title, anchor="start", fontSize=14, offset=12))
    specification = chart.to_dict(validate=False)  # Altair has validated its parts as they were made
    specification["description"] = alternative
    specification["config"] = {**specification.get("config", {}), **_CONFIG}
    return specification


def to_csv(frame: pd.DataFrame, provenance: dict) -> bytes:
    """A table as CSV (UTF-8), its provenance in comment lines above it.

    Text that a spreadsheet would read as a formula is prefixed with an apostrophe.
    """
    lines = [f"# {name}: {_one_line(value)}" for name, value in provenance.items()]
    plain = frame.map(_no_formula)
    return ("\n".join(lines) + "\n" + plain.to_csv(index=False, lineterminator="\n")).encode()


def to_json(frame: pd.DataFrame, provenance: dict) -> bytes:
    """A table as JSON: `provenance`, and `rows` with an object each; null where there is no finite number."""
    rows = [
        {str(name): _finite(value) for name, value in row.items()} for row in frame.astype(object).to_dict("records")
    ]
    document = {"provenance": provenance, "rows": rows}
    return json.dumps(document, indent=1, allow_nan=False, default=_unpacked, ensure_ascii=False).encode()


def result_provenance(result: AblationResult) -> dict:
    """The provenance of a result: model, data, statistics, settings, versions."""
    settings = {"ablated": result.select, "bins of the peak": result.bins, "positions": result.positions}
    return _measured_with(result.model, result.data, result.statistics) | settings | versions()


def run_provenance(described: dict) -> dict:
    """The provenance of a sweep or a curve, by its description."""
    settings = {"methods": ", ".join(described["methods"]), "bins of the peak": described["bins"]}
    if "seeds" in described:
        settings["seeds of the draws"] = ", ".join(map(str, described["seeds"]))
        settings["drawn"] = "whole heads" if described["whole_heads"] else "neurons"
    return _measured_with(described["model"], described["data"], described["statistics"]) | settings | versions()


def _measured_with(model: dict, data: dict, statistics: dict | None) -> dict:
    return {
        "model": model["ref"],
        "model fingerprint": model["fingerprint"],
        "model dtype": model["dtype"],
        "data": data["ref"],
        "data part": data["split"],
        "data fingerprint": data["fingerprint"],
        "predictions": data["predictions"],
        "sequences": data["sequences"],
        "seq-len": data["seq_len"],
        "seed": data["seed"],
        "statistics digest": (statistics or {}).get("digest"),
    }


def statistics_provenance(model: ModelInfo, statistics: Statistics, bins: int) -> dict:
    """The provenance of a distribution: model, data, statistics, settings, versions."""
    made = statistics.provenance
    return {
        "model": model.ref,
        "model fingerprint": model.fingerprint,
        "model dtype": model.dtype,
        "data": made["data"],
        "data part": made["split"],
        "data fingerprint": made["data_fingerprint"],
        "positions": made["tokens"],
        "positions left out": made["positions_left_out"],
        "seed": made["seed"],
        "statistics digest": statistics.digest,
        "bins of the peak": bins,
    } | versions()


def versions() -> dict[str, str]:
    """The project's version, Python's, and those of the packages that make the numbers."""
    found = {"ablation-explorer": project_version(), "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def file_name(*parts: str, ending: str) -> str:
    """A name for a download: what it is, made safe for any file system."""
    words = (re.sub(r"[^A-Za-z0-9._-]+", "-", part).strip("-.")[:60] for part in parts)
    return "-".join(word for word in words if word) + f".{ending}"


def _one_line(value: object) -> str:
    return " ".join(str(value).split())


def _no_formula(value: object) -> object:
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _unpacked(value: object) -> object:
    """numpy's own numbers as Python's."""
    return value.item() if hasattr(value, "item") else str(value)
