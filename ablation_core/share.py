"""The script and the command that give the numbers of a page again.

Both name everything that decides a number: the weights' type, the data's settings, the statistics file, methods, bins
and seed. They are run in the project's folder; the script says on standard error where model or data are not those it
was made with.
"""

import shlex
from pathlib import Path

from ablation_core import cache
from ablation_core.folders import CACHE
from ablation_core.models import LoadedModel
from ablation_core.results import AblationResult
from ablation_core.statistics import Statistics

_NEURON_SCRIPT = '''\
"""A neuron's distribution in numbers, as JSON. Made by Ablation Explorer; run it in the project's folder."""

import json

from ablation_core import load_model, load_statistics
from ablation_core.neurons import describe_neurons
from ablation_core.selection import Selection

model = load_model({model!r}, dtype={dtype!r})
statistics = load_statistics({statistics!r}, model)  # its digest was {digest}
selection = Selection.parse({select!r}, model.shape)
print(json.dumps(describe_neurons(model, statistics, selection, bins={bins}), indent=2))
'''

_ABLATION_SCRIPT = '''\
"""An ablation's numbers, as JSON. Made by Ablation Explorer; run it in the project's folder."""

import json
import sys

from ablation_core import ablate, load_data, load_model, load_statistics
from ablation_core.engine import Recording
from ablation_core.noise import noise_floor
from ablation_core.selection import Selection
from ablation_core.verdict import comparison, verdict

model = load_model({model!r}, dtype={dtype!r})
data = load_data({data!r}, model, predictions={predictions}, seq_len={seq_len}, batch_size={batch_size}, seed={seed})
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
    spared={spared},
)
floor = None
for floor in noise_floor(Recording(model, data), Selection.parse(result.select, model.shape), statistics, seed={seed}):
    pass  # the last one is over all random sets
document = result.to_dict()
document["noise_floor"] = None if floor is None else {{"low": floor.low, "high": floor.high, "sets": floor.sets}}
document["verdict"] = verdict(result, {method!r}, floor)
document["comparison"] = comparison(result)
print(json.dumps(document, indent=2))
'''


def statistics_file(statistics: Statistics, folder: Path = CACHE) -> str:
    """The path of a statistics file, from the project's folder where it lies there; its usual name if it is gone."""
    usual = cache.statistics_path(statistics, folder)
    entries = [] if usual.exists() else cache.list_statistics(folder)[0]
    path = next((entry.path for entry in entries if entry.digest == statistics.digest), usual)
    root = CACHE.parent
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


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
        statistics=statistics_file(statistics, folder),
        digest=statistics.digest,
        select=result.select,
        methods=[row.method for row in result.results],
        bins=result.bins,
        spared=result.positions_spared,
        method=method,
    )


def ablation_command(result: AblationResult, statistics: Statistics, folder: Path = CACHE) -> str:
    """The command that prints a result; with `--json` behind it, to the last digit."""
    words = ["python", "-m", "ablation_core", "ablate", result.model["ref"], "--dtype", result.model["dtype"]]
    words += ["--data", result.data["ref"], "--predictions", str(result.data["predictions"])]
    if result.data["seq_len"]:
        words += ["--seq-len", str(result.data["seq_len"])]
    words += ["--batch-size", str(result.data["batch_size"]), "--seed", str(result.data["seed"])]
    words += ["--select", result.select]
    for row in result.results:
        words += ["--method", row.method]
    words += ["--bins", str(result.bins), "--statistics", statistics_file(statistics, folder)]
    return shlex.join(words + ["--spare-first"] * (result.positions_spared > 0))


def neuron_script(model: LoadedModel, statistics: Statistics, select: str, bins: int, folder: Path = CACHE) -> str:
    """A Python script that prints the figures of neurons as JSON."""
    return _NEURON_SCRIPT.format(
        model=model.ref,
        dtype=model.dtype,
        statistics=statistics_file(statistics, folder),
        digest=statistics.digest,
        select=select,
        bins=bins,
    )


def neuron_command(model: LoadedModel, statistics: Statistics, select: str, bins: int, folder: Path = CACHE) -> str:
    """The command that prints the figures of neurons."""
    words = ["python", "-m", "ablation_core", "neurons", model.ref, "--dtype", model.dtype]
    words += ["--select", select, "--bins", str(bins), "--statistics", statistics_file(statistics, folder)]
    return shlex.join(words)
