"""The script and the command that give the numbers of a page again.

Both name everything that decides a number: the weights' type, the data's settings, the statistics file, methods, bins
and seed. They are run in the project's folder, or anywhere where the package is installed; a script needs the names of
`ablation_core` alone, and says on standard error where model or data are not those it was made with.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from ablation_core.activations import files
from ablation_core.activations.statistics import Statistics
from ablation_core.experiments.results import AblationResult
from ablation_core.models.info import ModelInfo
from ablation_core.storage import CACHE, INSTALLED, PROJECT

_NEURON_SCRIPT = '''\
"""A neuron's distribution in numbers, as JSON. Made by Ablation Explorer; run it in the project's folder, or where the package is installed."""

import json

from ablation_core import describe_neurons, load_model, load_statistics

model = load_model({model!r}, dtype={dtype!r})
statistics = load_statistics({statistics!r}, model)  # its digest was {digest}
print(json.dumps(describe_neurons(model, statistics, {select!r}, bins={bins}), indent=2))
'''

_ABLATION_SCRIPT = '''\
"""An ablation's numbers, as JSON. Made by Ablation Explorer; run it in the project's folder, or where the package is installed."""

import json
import sys

from ablation_core import (
    AblationError,
    ablate,
    comparison,
    load_data,
    load_model,
    load_statistics,
    noise_floor,
    verdict,
)

model = load_model({model!r}, dtype={dtype!r})
data = load_data({data!r}, model, predictions={predictions}, seq_len={seq_len}, batch_size={batch_size}, seed={seed}{documents})
statistics = load_statistics({statistics!r}, model)
for what, found, shown in (
    ("model", model.fingerprint, {model_fingerprint!r}),
    ("data", data.fingerprint, {data_fingerprint!r}),
    ("statistics", statistics.digest, {digest!r}),
):
    if found != shown:
        print(f"note: the {{what}} is {{found}}, the page showed {{shown}}: numbers will differ.", file=sys.stderr)

result = ablate(
    model,
    data,
    {select!r},
    method={methods!r},
    statistics=statistics,
    bins={bins},
    positions={positions!r},
)
try:
    floor = noise_floor(model, data, {select!r}, statistics=statistics, method={method!r}, bins={bins}, seed={seed}, positions={positions!r})
except AblationError:  # there are too few other neurons to draw random sets from
    floor = None
document = result.to_dict()
document["noise_floor"] = None if floor is None else {{"low": floor.low, "high": floor.high, "sets": floor.sets}}
document["verdict"] = verdict(result, {method!r}, floor)
document["comparison"] = comparison(result)
print(json.dumps(document, indent=2))
'''


_RUN_SCRIPT = '''\
"""{what}, as JSON. Made by Ablation Explorer; run it in the project's folder, or where the package is installed."""

import json
import sys

from ablation_core import {function}, load_data, load_model, load_statistics

model = load_model({model!r}, dtype={dtype!r})
data = load_data({data!r}, model, predictions={predictions}, seq_len={seq_len}, batch_size={batch_size}, seed={seed}{documents})
statistics = {statistics}
for what, found, shown in (
    ("model", model.fingerprint, {model_fingerprint!r}),
    ("data", data.fingerprint, {data_fingerprint!r}),
    ("statistics", statistics and statistics.digest, {digest!r}),
):
    if found != shown:
        print(f"note: the {{what}} is {{found}}, the page showed {{shown}}: numbers will differ.", file=sys.stderr)

# What is finished is kept in the cache folder, and not measured again.
result = {function}(model, data, {methods!r}, statistics=statistics, bins={bins}{settings})
print(json.dumps(result.to_dict(), indent=2))
'''


def statistics_file(statistics: Statistics, folder: Path = CACHE) -> str:
    """The path of a statistics file, from the project's folder where it lies there; its usual name if it is gone."""
    usual = files.statistics_path(statistics, folder)
    if not usual.exists() and (found := _file_of(statistics.digest, folder)):
        return found
    return _from_project(usual)


def _file_of(digest: str, folder: Path) -> str | None:
    """The same by the digest alone; None where no file has it."""
    entries, _ = files.list_statistics(folder)
    return next((_from_project(entry.path) for entry in entries if entry.digest == digest), None)


def _from_project(path: Path) -> str:
    return str(path.relative_to(PROJECT) if path.is_relative_to(PROJECT) and not INSTALLED else path)


def ablation_script(result: AblationResult, statistics: Statistics, method: str, folder: Path = CACHE) -> str:
    """A Python script that prints a result, its noise floor and its sentences as one JSON document.

    Args:
        method: whose verdict is printed.
    """
    return _ABLATION_SCRIPT.format(
        model=result.model["ref"],
        dtype=result.model["dtype"],
        model_fingerprint=result.model["fingerprint"],
        data=result.data["ref"],
        data_fingerprint=result.data["fingerprint"],
        predictions=result.data["predictions"],
        seq_len=result.data["seq_len"] or 128,
        batch_size=result.data["batch_size"],
        seed=result.data["seed"],
        documents=", documents=True" if result.data.get("documents") else "",
        statistics=statistics_file(statistics, folder),
        digest=statistics.digest,
        select=result.select,
        methods=[row.method for row in result.results],
        bins=result.bins,
        positions=result.positions,
        method=method,
    )


def ablation_command(result: AblationResult, statistics: Statistics, folder: Path = CACHE) -> str:
    """The command that prints a result; with `--json` behind it, to the last digit."""
    described, methods = {"model": result.model, "data": result.data}, [row.method for row in result.results]
    words = _words("ablate", described, methods, result.bins, statistics_file(statistics, folder))
    words += ["--select", result.select]
    return shlex.join(words + _positions({"positions": result.positions}))


def _positions(described: dict) -> list[str]:
    """The option that names where the ablation acts; none where it is everywhere."""
    positions = described.get("positions", "all")
    return ["--positions", positions] if positions != "all" else []


def _words(command: str, described: dict, methods: Sequence[str], bins: int, statistics: str | None) -> list[str]:
    """The words of a command that measures on data."""
    model, data = described["model"], described["data"]
    words = ["python", "-m", "ablation_core", command, model["ref"], "--dtype", model["dtype"]]
    words += ["--data", data["ref"], "--predictions", str(data["predictions"])]
    words += ["--seq-len", str(data["seq_len"])] if data["seq_len"] else []
    words += ["--documents"] if data.get("documents") else []
    words += ["--batch-size", str(data["batch_size"]), "--seed", str(data["seed"])]
    for method in methods:
        words += ["--method", method]
    return [*words, "--bins", str(bins), *(["--statistics", statistics] if statistics else [])]


def selection_command(described: dict, methods: Sequence[str], select: str, folder: Path = CACHE) -> str:
    """The command that ablates a selection with the settings of a document: of `ablate`, or of a sweep for one of its heads."""
    words = _words("ablate", described, methods, described["bins"], _described_file(described, folder))
    words += ["--select", select]
    return shlex.join(words + _positions(described))


def estimate_command(described: dict, methods: Sequence[str], folder: Path = CACHE) -> str:
    """The command that estimates every head and neuron with the settings of a document of `estimate`."""
    words = _words("estimate", described, methods, described["bins"], _described_file(described, folder))
    return shlex.join(words + _positions(described))


def head_command(described: dict, methods: Sequence[str], head: str, bins: int, folder: Path = CACHE) -> str:
    """The command that describes a head with the settings of a document of `head`."""
    words = _words("head", described, methods, bins, _described_file(described, folder))
    return shlex.join([*words, head])


def sweep_script(described: dict, methods: Sequence[str], adaptive: bool = False, folder: Path = CACHE) -> str:
    """A Python script that measures every head and prints the map as JSON.

    Args:
        described: a result's description: model, data, statistics, bins.
    """
    settings = _positions_argument(described) + (", adaptive=True" if adaptive else "")
    return _run_script("sweep", described, methods, what="Every head, one at a time", settings=settings, folder=folder)


def sweep_command(described: dict, methods: Sequence[str], adaptive: bool = False, folder: Path = CACHE) -> str:
    """The command that does the same."""
    words = _words("sweep", described, methods, described["bins"], _described_file(described, folder))
    return shlex.join(words + _positions(described) + ["--adaptive"] * adaptive)


def curve_script(described: dict, folder: Path = CACHE) -> str:
    """A Python script that measures pruning curves and prints them as JSON.

    Args:
        described: a result's description, which names its methods, seeds and percents too.
    """
    settings = f", seeds={tuple(described['seeds'])}, percents={tuple(described['percents'])}"
    settings += f", whole_heads={described['whole_heads']}{_positions_argument(described)}"
    return _run_script(
        "curve", described, described["methods"], what="Pruning curves", settings=settings, folder=folder
    )


def curve_command(described: dict, folder: Path = CACHE) -> str:
    """The command that does the same."""
    file = _described_file(described, folder)
    words = _words("curve", described, described["methods"], described["bins"], file)
    words += ["--seeds", *map(str, described["seeds"]), "--percents", *map(str, described["percents"])]
    return shlex.join(words + ["--whole-heads"] * described["whole_heads"] + _positions(described))


def _positions_argument(described: dict) -> str:
    positions = described.get("positions", "all")
    return f", positions={positions!r}" if positions != "all" else ""


def _described_file(described: dict, folder: Path) -> str | None:
    return described["statistics"] and _file_of(described["statistics"]["digest"], folder)


def _run_script(
    function: str, described: dict, methods: Sequence[str], *, what: str, settings: str, folder: Path
) -> str:
    model, data, file = described["model"], described["data"], _described_file(described, folder)
    return _RUN_SCRIPT.format(
        what=what,
        function=function,
        model=model["ref"],
        dtype=model["dtype"],
        model_fingerprint=model["fingerprint"],
        data=data["ref"],
        data_fingerprint=data["fingerprint"],
        predictions=data["predictions"],
        seq_len=data["seq_len"] or 128,
        batch_size=data["batch_size"],
        seed=data["seed"],
        documents=", documents=True" if data.get("documents") else "",
        statistics=f"load_statistics({file!r}, model)" if file else "None",
        digest=described["statistics"] and described["statistics"]["digest"],
        methods=list(methods),
        bins=described["bins"],
        settings=settings,
    )


def neuron_script(model: ModelInfo, statistics: Statistics, select: str, bins: int, folder: Path = CACHE) -> str:
    """A Python script that prints the figures of neurons as JSON."""
    return _NEURON_SCRIPT.format(
        model=model.ref,
        dtype=model.dtype,
        statistics=statistics_file(statistics, folder),
        digest=statistics.digest,
        select=select,
        bins=bins,
    )


def neuron_command(model: ModelInfo, statistics: Statistics, select: str, bins: int, folder: Path = CACHE) -> str:
    """The command that prints the figures of neurons."""
    words = ["python", "-m", "ablation_core", "neurons", model.ref, "--dtype", model.dtype]
    words += ["--select", select, "--bins", str(bins), "--statistics", statistics_file(statistics, folder)]
    return shlex.join(words)
