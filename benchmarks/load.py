"""Many at once on one server: `python -m benchmarks.load --minutes 10`.

Starts `streamlit run app.py`, opens twelve sessions that speak Streamlit's own protocol over WebSockets, and lets each
behave like a person: open a link to the Ablate page with some model, selection, method and bins; type other selections;
change one's mind while a result is being computed; look at another page; close the tab and come back. Every table of
results that is shown whole is kept. When the time is up and the server is gone, each is computed alone, and must be
equal to the last bit. The server itself reports, from a thread inside it, its memory, how many models and recordings
there are, and every hook left on a model.
"""

import argparse
import gc
import json
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from urllib.parse import urlencode

import numpy as np
import psutil
from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from ablation_core.selection import Selection, Shape
from benchmarks.measure import machine, write

ROOT = Path(__file__).parent.parent
SESSIONS = 12
EVERY = 10.0  # seconds between two looks at the server
FORGOTTEN = 130.0  # seconds: Streamlit keeps a closed tab's session for two minutes
LONGEST = 240.0  # seconds that a page may take before it counts as hung
HEAD_DIM = {"opt-mini": 32, "roberta-mini": 32, "vit-mini": 16}
MODELS = tuple(HEAD_DIM)
METHODS = ("zero", "mean", "median", "peak", "resample-dataset", "peak-own-range", "peak-density")
OTHER_PAGES = ("", "head_map", "learn")


@dataclass(frozen=True)
class Request:
    """What a person asks the Ablate page."""

    model: str
    select: str
    method: str
    bins: int
    predictions: int

    def query(self) -> str:
        return urlencode(asdict(self))


def drawn(chance: Random, model: str | None = None) -> Request:
    """A request: some heads and neurons of six layers of six heads; one in four is a favourite of everybody's."""
    if chance.random() < 0.25:
        select = chance.choice(("0.0", "3.2", "5.*"))
    else:
        terms = {f"{chance.randrange(6)}.{chance.randrange(6)}" for _ in range(chance.randint(1, 3))}
        select = " ".join(sorted(terms)) + chance.choice(("", "", ":0-7", ":3,5"))
    model = model or chance.choice(MODELS)
    select = str(Selection.parse(select, Shape((6,) * 6, HEAD_DIM[model])))  # as the page writes it
    return Request(model, select, chance.choice(METHODS), chance.choice((50, 100, 200)), chance.choice((500, 1000)))


class Session:
    """A browser tab: one WebSocket, and what it shows."""

    def __init__(self, port: int) -> None:
        self._open = ExitStack()
        address, origin = f"ws://localhost:{port}/_stcore/stream", f"http://localhost:{port}"
        socket = connect(address, subprotocols=["streamlit"], origin=origin, max_size=None, open_timeout=60)
        self._socket: ClientConnection = self._open.enter_context(socket)
        self.typed = ""  # the identity of the box where neurons are typed
        self.asked = ("", "")  # the page that is open, and its link
        self.looks: dict[str, float] = {}  # the parts of the page that look again by themselves, and how often
        self.waited = False

    def close(self) -> None:
        self._open.close()

    def ask(self, page: str, query: str, typed: str | None = None) -> None:
        """Open a link or, in the page that is open, type other neurons."""
        from streamlit.proto.BackMsg_pb2 import BackMsg

        message, self.asked, self.looks = BackMsg(), (page, query), {}
        message.rerun_script.query_string, message.rerun_script.page_name = query, page
        if typed is not None:
            state = message.rerun_script.widget_states.widgets.add()
            state.id, state.string_value = self.typed, typed
        self._socket.send(message.SerializeToString())

    def _look_again(self) -> None:
        """What a browser does by itself, while a page watches a job."""
        from streamlit.proto.BackMsg_pb2 import BackMsg

        for part in list(self.looks):
            message = BackMsg()
            message.rerun_script.page_name, message.rerun_script.query_string = self.asked
            message.rerun_script.fragment_id = part
            self._socket.send(message.SerializeToString())

    def shown(self, select: str | None = None, seconds: float = LONGEST) -> dict:
        """What the page shows once nothing more comes: the whole table of results, and what went wrong.

        Args:
            select: wait until the page shows these neurons; what was asked for before may still be under way.

        Raises:
            TimeoutError: the page takes longer.
        """
        from streamlit.dataframe_util import convert_arrow_bytes_to_pandas_df
        from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

        end, table, wrong, chips = time.monotonic() + seconds, None, [], None
        while True:
            message = ForwardMsg()
            try:
                patience = min([end - time.monotonic(), *self.looks.values()])
                message.ParseFromString(self._socket.recv(timeout=max(0.01, patience)))
            except TimeoutError:
                if time.monotonic() > end:
                    raise
                self._look_again()
                continue
            kind = message.WhichOneof("type")
            ended = kind == "script_finished" and message.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY
            if ended and not self.looks and (select is None or chips == select or wrong):
                return {"table": table, "wrong": wrong}
            if kind == "auto_rerun":
                self.looks[message.auto_rerun.fragment_id] = message.auto_rerun.interval
            if kind == "stop_auto_rerun":
                for part in message.stop_auto_rerun.fragment_ids:
                    self.looks.pop(part, None)
            if kind == "new_session" and not message.metadata.run.fragment_ids:
                table, wrong, chips, self.looks = None, [], None, {}
            if kind != "delta" or message.delta.WhichOneof("type") != "new_element":
                continue
            element = message.delta.new_element
            match element.WhichOneof("type"):
                case "dataframe":
                    frame = convert_arrow_bytes_to_pandas_df(element.dataframe.arrow_data.data)
                    if "perplexity" in frame:
                        table = _exact(frame.to_dict("list"))
                case "exception":
                    wrong.append(f"{element.exception.type}: {element.exception.message}")
                case "alert":
                    wrong.append(element.alert.body)
                case "text_input" if element.text_input.label == "Ablated neurons":
                    self.typed = element.text_input.id
                case "button_group" if "neurons selected" in element.button_group.label:
                    chips = " ".join(option.content for option in element.button_group.options)
                case "progress" if "aiting for" in element.progress.text:
                    self.waited = True


def _exact(columns: dict[str, list]) -> dict[str, list]:
    """A table in which equal means equal to the bit, NaN included."""
    return {
        name: [value.hex() if isinstance(value, float) else value for value in values]
        for name, values in columns.items()
    }


class Crowd:
    """What all sessions have seen."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.tables: dict[Request, list[dict]] = defaultdict(list)
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.counts: Counter = Counter()
        self.wrong: Counter = Counter()

    def saw(self, what: str, seconds: float, page: dict, request: Request | None = None) -> None:
        with self.lock:
            self.seconds[what].append(seconds)
            self.counts["pages"] += 1
            self.wrong.update(page["wrong"])
            if request and page["table"] is None:
                self.wrong[f"no table for {request}"] += 1
            elif request:
                self.tables[request].append(page["table"])


def person(port: int, number: int, seed: int, until: float, crowd: Crowd) -> None:
    """Twelve of these run at once: visits, one after the other, until the time is up."""
    chance = Random(seed * 1000 + number)
    while time.monotonic() < until:
        session = None
        try:
            session = Session(port)
            _visit(session, chance, until, crowd)
        except (TimeoutError, OSError, WebSocketException) as error:
            with crowd.lock:
                crowd.wrong[f"{type(error).__name__}: {error}"[:200]] += 1
        finally:
            if session is not None:
                with crowd.lock:
                    crowd.counts["visits"] += 1
                    crowd.counts["visits that were told to wait"] += session.waited
                session.close()


def _visit(session: Session, chance: Random, until: float, crowd: Crowd) -> None:
    """A link to the Ablate page; then other selections, now and then a change of mind, another page, or a closed tab."""
    request = drawn(chance)
    started = time.perf_counter()
    session.ask("ablate", request.query())
    page = session.shown(request.select)
    crowd.saw("link to Ablate opened", time.perf_counter() - started, page, request)
    for _ in range(chance.randint(1, 4)):
        if time.monotonic() > until:
            return
        what = "other neurons typed"
        if chance.random() < 0.3:  # asks, and asks for something else before that is there
            session.ask("ablate", request.query(), typed=drawn(chance, request.model).select)
            time.sleep(chance.random())
            what = "other neurons typed while others were being computed"
        request = replace(request, select=drawn(chance, request.model).select)
        started = time.perf_counter()
        session.ask("ablate", request.query(), typed=request.select)
        page = session.shown(request.select)
        crowd.saw(what, time.perf_counter() - started, page, request)
    if chance.random() < 0.3:
        started = time.perf_counter()
        session.ask(chance.choice(OTHER_PAGES), urlencode({"model": request.model}))
        crowd.saw("another page opened", time.perf_counter() - started, session.shown())
    if chance.random() < 0.5:  # the tab is closed while something is being computed
        session.ask("ablate", request.query(), typed=drawn(chance, request.model).select)
        time.sleep(chance.random())
        with crowd.lock:
            crowd.counts["tabs closed in the midst of a computation"] += 1


def compute_alone(requests: Iterator[Request]) -> Iterator[tuple[Request, dict]]:
    """The tables of these requests, from the core, with nothing else running."""
    from ablation_core import ablate, frames, load_data, load_model, load_statistics
    from ablation_core.cache import find_statistics
    from ablation_core.data import DEFAULT_DATA
    from ablation_core.methods import USUAL, usable_methods
    from ablation_core.server import SEED

    models = {name: load_model(name) for name in MODELS}
    for request in requests:
        model = models[request.model]
        ref = DEFAULT_DATA[model.modality]
        statistics = load_statistics(find_statistics(model, ref).path, model)
        data = load_data(ref, model, request.predictions, seed=SEED)
        names = [name for name in usable_methods(data, model.modality) if name in USUAL or name == request.method]
        result = ablate(model, data, request.select, names, statistics, request.bins, SEED)
        yield request, _exact(frames.result_frame(result).to_dict("list"))


def serve(port: int, report: Path) -> None:
    """The server, with a thread that writes down what it holds."""
    from streamlit.web import cli

    threading.Thread(target=_watch, args=(report,), daemon=True).start()
    sys.argv = ["streamlit", "run", str(ROOT / "app.py"), "--server.port", str(port), "--server.headless", "true"]
    sys.argv += ["--server.fileWatcherType", "none"]
    cli.main()


def _watch(report: Path) -> None:
    from ablation_core.data import Data
    from ablation_core.engine import Recording
    from ablation_core.models import LoadedModel

    process, rows = psutil.Process(), []
    while True:
        time.sleep(EVERY)
        gc.collect()
        found = [one for one in gc.get_objects() if type(one) in (LoadedModel, Recording, Data)]
        kinds = Counter(type(one).__name__ for one in found)
        hooks = {
            name for one in found if type(one) is LoadedModel and one.lock.acquire(timeout=60) for name in _hooks(one)
        }
        row = {
            "seconds": time.monotonic(),
            "megabytes": process.memory_info().rss >> 20,
            "threads": process.num_threads(),
        }
        rows.append(row | {"models": kinds["LoadedModel"], "recordings": kinds["Recording"], "data": kinds["Data"], "hooks": sorted(hooks)})  # fmt: skip
        partial = report.with_suffix(".partial")
        partial.write_text(json.dumps(rows))
        partial.replace(report)
        del found


def _hooks(model: object) -> list[str]:
    """The hooks on a model whose lock is held here: between two steps there must be none."""
    try:
        kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        parts = list(model.module.named_modules())
        found = [f"{model.ref} {name} {kind}" for name, part in parts for kind in kinds if getattr(part, kind)]
        return found + [f"{model.ref} {name} forward" for name, part in parts if "forward" in vars(part)]
    finally:
        model.lock.release()


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
    parser.add_argument("--serve", nargs=2, metavar=("PORT", "REPORT"), help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.serve:
        serve(int(parsed.serve[0]), Path(parsed.serve[1]))
        return
    with TemporaryDirectory() as place:
        port, report, crowd = _free_port(), Path(place) / "report.json", Crowd()
        command = [sys.executable, "-m", "benchmarks.load", "--serve", str(port), str(report)]
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
