"""The people of the load test: sessions that speak Streamlit's own protocol over WebSockets, and what they see."""

import threading
import time
from collections import Counter, defaultdict
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from random import Random
from urllib.parse import urlencode

from websockets.exceptions import WebSocketException
from websockets.sync.client import ClientConnection, connect

from ablation_core.selection import ModelShape, Selection

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
    select = str(Selection.parse(select, ModelShape((6,) * 6, HEAD_DIM[model])))  # as the page writes it
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
        self._script = ""  # which page the server runs; a page that draws itself again is found by it
        self._at = ""  # the same, as an address has it
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
            message.rerun_script.page_script_hash = self._script
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
        from streamlit.proto.Alert_pb2 import Alert
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
            asked = self._at == self.asked[0] and (select is None or chips == select)
            if ended and not self.looks and (asked or wrong):
                return {"table": table, "wrong": wrong}
            if kind == "navigation":
                self._script = message.navigation.page_script_hash
                pages = {one.page_script_hash: one for one in message.navigation.app_pages}
                self._at = "" if pages[self._script].is_default else pages[self._script].url_pathname
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
                        table = exact(frame.to_dict("list"))
                case "exception":
                    wrong.append(f"{element.exception.type}: {element.exception.message}")
                case "alert" if element.alert.format in (Alert.ERROR, Alert.WARNING):
                    wrong.append(element.alert.body)
                case "text_input" if element.text_input.label == "Ablated neurons":
                    self.typed = element.text_input.id
                case "button_group" if "neurons selected" in element.button_group.label:
                    chips = " ".join(option.content for option in element.button_group.options)
                case "progress" if "aiting for" in element.progress.text:
                    self.waited = True


def exact(columns: dict[str, list]) -> dict[str, list]:
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
    """Some of these run at once: visits, one after the other, until the time is up."""
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
        page = session.shown()
        crowd.saw("another page opened", time.perf_counter() - started, page)
    if chance.random() < 0.5:  # the tab is closed while something is being computed
        session.ask("ablate", request.query(), typed=drawn(chance, request.model).select)
        time.sleep(chance.random())
        with crowd.lock:
            crowd.counts["tabs closed in the midst of a computation"] += 1
