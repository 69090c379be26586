"""Many at once on one server: `python -m benchmarks.load --minutes 10`.

Starts `streamlit run app.py`, opens twelve sessions, and lets each
behave like a person: open a link to the Ablate page with some model, selection, method and bins; type other selections;
change one's mind while a result is being computed; look at another page; close the tab and come back. Every table of
results that is shown whole is kept. When the time is up and the server is gone, each is computed alone, and must be
equal to the last bit. The server itself reports, from a thread inside it, its memory, how many models and recordings
there are, and every hook left on a model.
"""

import argparse
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.load_client import MODELS, Crowd, Request, exact, person
from benchmarks.load_server import EVERY, ROOT
from benchmarks.measure import machine, write

SESSIONS = 12
FORGOTTEN = 130.0  # seconds: Streamlit keeps a closed tab's session for two minutes


def compute_alone(requests: Iterator[Request]) -> Iterator[tuple[Request, dict]]:
    """The tables of these requests, from the core, with nothing else running."""
    from ablation_core import ablate, load_data, load_model, load_statistics
    from ablation_core.activations.files import find_statistics
    from ablation_core.data.references import DEFAULT_DATA
    from ablation_core.methods.registry import USUAL, usable_methods
    from ablation_core.report import frames
    from ablation_core.ui.shared import SEED

    models = {name: load_model(name) for name in MODELS}
    for request in requests:
        model = models[request.model]
        ref = DEFAULT_DATA[model.modality]
        statistics = load_statistics(find_statistics(model, ref).path, model)
        data = load_data(ref, model, request.predictions, seed=SEED)
        names = [name for name in usable_methods(data, model.modality) if name in USUAL or name == request.method]
        result = ablate(model, data, request.select, names, statistics=statistics, bins=request.bins, seed=SEED)
        yield request, exact(frames.result_frame(result).to_dict("list"))


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def _until_it_answers(port: int, server: subprocess.Popen) -> None:
    for _ in range(600):
        if server.poll() is not None:
            raise SystemExit("The server ended at once.")
        with socket.socket() as probe:
            if probe.connect_ex(("localhost", port)) == 0:
                return
        time.sleep(0.2)
    raise SystemExit("The server does not answer.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--sessions", type=int, default=SESSIONS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--leave", type=float, default=FORGOTTEN, help="seconds until the last look at the server")
    parsed = parser.parse_args()
    with TemporaryDirectory() as place:
        port, report, crowd = _free_port(), Path(place) / "report.json", Crowd()
        command = [sys.executable, "-m", "benchmarks.load_server", str(port), str(report)]
        server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        try:
            _until_it_answers(port, server)
            until = time.monotonic() + 60 * parsed.minutes
            people = [
                threading.Thread(target=person, args=(port, number, parsed.seed, until, crowd))
                for number in range(parsed.sessions)
            ]
            for one in people:
                one.start()
            for one in people:
                one.join()
            time.sleep(parsed.leave + 3 * EVERY)  # everybody has left
            rows = json.loads(report.read_text())
        finally:
            server.terminate()
            server.wait(30)
    mismatches, compared = [], 0
    for number, (request, expected) in enumerate(compute_alone(iter(crowd.tables)), start=1):
        print(f"{number} of {len(crowd.tables)} computed alone", file=sys.stderr)
        compared += len(crowd.tables[request])
        mismatches += [asdict(request) for table in crowd.tables[request] if table != expected]
    write("load", _document(parsed, crowd, rows, mismatches, compared))
    if mismatches or crowd.wrong or any(row["hooks"] for row in rows):
        raise SystemExit("Not all is as it should be: see above.")


def _document(parsed: argparse.Namespace, crowd: Crowd, rows: list[dict], mismatches: list, compared: int) -> dict:
    megabytes = np.array([row["megabytes"] for row in rows])
    quarters = [round(float(part.mean())) for part in np.array_split(megabytes, 4)]
    return {
        "minutes": parsed.minutes,
        "sessions": parsed.sessions,
        "results shown and compared": compared,
        "distinct requests": len(crowd.tables),
        "not equal to the bit": mismatches,
        "went wrong": dict(crowd.wrong),
        "hooks left": sorted({hook for row in rows for hook in row["hooks"]}),
        "counts": dict(sorted(crowd.counts.items())),
        "seconds": {
            what: {"times": len(taken)} | {f"p{p}": round(float(np.percentile(taken, p)), 2) for p in (50, 90, 99)}
            for what, taken in sorted(crowd.seconds.items())
        },
        "memory of the server, MB": {
            "mean of each quarter of the time": quarters,
            "most": int(megabytes.max()),
            "after everybody left": int(megabytes[-1]),
        },
        "most at once": {kind: max(row[kind] for row in rows) for kind in ("models", "recordings", "data", "threads")},
        "after everybody left": {kind: rows[-1][kind] for kind in ("models", "recordings", "data", "threads")},
        "machine": machine(),
    }


if __name__ == "__main__":
    main()
