"""Engines without a cluster: tasks measured together, in units, and what is sent to a worker."""

import json
import pickle
import shutil
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ablation_core import bundled, load_data, load_model
from ablation_core.__main__ import main
from ablation_core.activations.file_format import statistics_bytes
from ablation_core.activations.files import find_statistics, load_statistics, save_statistics
from ablation_core.bundled import fashion_mnist
from ablation_core.cluster.backend import UNIT, UNITS_A_WORKER, RayBackend, units_of
from ablation_core.cluster.connection import check_answers
from ablation_core.cluster.payload import Payload, pack_data, pack_model, unpack, unpacked_data_ref
from ablation_core.cluster.worker import Order, Worker, assignment, statistics_payload
from ablation_core.data.dataset import Data
from ablation_core.engine import clean_passes, forward
from ablation_core.errors import AblationError, DataError, EngineError, ModelError
from ablation_core.methods.registry import METHODS
from ablation_core.models.loaded import LoadedModel
from ablation_core.runs.backends import LOCAL, Task, measure_together
from ablation_core.runs.units import WorkUnit
from ablation_core.selection import ModelShape, Selection


@pytest.fixture(scope="module")
def data(opt_mini: LoadedModel) -> Data:
    return load_data("python-docs", opt_mini, predictions=180, seq_len=32, batch_size=2)


def tasks_of(model: LoadedModel, *heads: tuple[int, int]) -> list[Task]:
    methods = METHODS["zero"], METHODS["resample-dataset"]
    return [Task(WorkUnit(f"{head}", Selection.of_heads([head], model.shape)), methods) for head in heads]


def test_tasks_measured_together_share_each_clean_pass_and_give_the_same(
    opt_mini: LoadedModel, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks = tasks_of(opt_mini, (3, 1), (3, 4), (5, 0))
    alone = [
        news for news in LOCAL.measure(tasks, 100, None, clean_passes.CleanPassCache(opt_mini, data)) if news.record
    ]
    assert clean_passes.CleanPassCache(opt_mini, data).keeps_all
    passes, record = Counter(), forward.record
    monkeypatch.setattr(clean_passes, "record", lambda *given: passes.update(["clean"]) or record(*given))
    sharing = clean_passes.CleanPassCache(opt_mini, data, limit=0)
    assert not sharing.keeps_all
    together = [news for news in measure_together(tasks, 100, None, sharing) if news.record]
    assert json.dumps([news.record for news in together]) == json.dumps([news.record for news in alone])
    assert [news.task for news in together] == [0, 1, 2]
    assert passes["clean"] == len(data), "a clean pass a batch, not one a batch and task"


@given(st.lists(st.integers(0, 3), min_size=1, max_size=80), st.integers(1, 5))
def test_units_hold_every_task_once_and_share_their_first_block(layers: list[int], workers: int) -> None:
    shape = ModelShape((2,) * 4, 4)
    tasks = [Task(WorkUnit(str(n), Selection.of_heads([(at, 0)], shape)), ()) for n, at in enumerate(layers)]
    units = units_of(tasks, workers)
    assert sorted(number for unit in units for number in unit) == list(range(len(layers)))
    assert all(len({layers[number] for number in unit}) == 1 for unit in units)
    assert max(map(len, units)) <= UNIT and len(units) >= min(len(layers), UNITS_A_WORKER * workers) / 2
    assert [unit[0] for unit in units] == sorted(unit[0] for unit in units), "what was wanted first comes first"


def test_a_worker_gives_what_this_process_gives(opt_mini: LoadedModel, data: Data) -> None:
    statistics = load_statistics(find_statistics(opt_mini, "python-docs").path, opt_mini)
    sent = {"statistics": statistics_payload(statistics_bytes(statistics))}
    tasks = [replace(task, methods=(METHODS["peak"], METHODS["zero"])) for task in tasks_of(opt_mini, (2, 1), (4, 4))]
    worker = Worker()
    (name,) = worker.prepare(assignment(opt_mini, data, 50, "cpu", None, sent), *sent.values())
    assert name
    orders = [Order.of(7 + number, task) for number, task in enumerate(tasks)]
    elsewhere = {news.task - 7: news.record for news in worker.measure(orders) if news.record}
    here = LOCAL.measure(tasks, 50, statistics, clean_passes.CleanPassCache(opt_mini, data))
    assert elsewhere == {news.task: news.record for news in here if news.record}


def test_a_worker_says_what_differs_and_where(opt_mini: LoadedModel, data: Data) -> None:
    def refusal(**changes: str) -> str:
        with pytest.raises(AblationError, match="On the machine ") as refused:
            list(Worker().prepare(replace(assignment(opt_mini, data, 100, "cpu", None, {}), **changes)))
        assert isinstance(refused.value, DataError | ModelError)
        return str(refused.value)

    assert "python-docs is not what the driver has" in refusal(data_fingerprint="another")
    assert "3.99.0 there" in refusal(data_fingerprint="another", python="3.99.0")
    assert "the weights of opt-mini differ" in refusal(model_fingerprint="another")
    assert "There is no model" in refusal(model="no-such-model")


def test_a_model_that_no_worker_could_load_as_it_is_here_is_refused(tmp_path: Path) -> None:
    shutil.copytree(bundled.FOLDER / "opt-mini", tmp_path / "mine")
    model = load_model(str(tmp_path / "mine"))
    data = load_data("python-docs", model, 40, seq_len=32)

    def measured() -> None:
        list(RayBackend().measure(tasks_of(model, (2, 1)), 50, None, clean_passes.CleanPassCache(model, data)))

    model.module.register_forward_hook(lambda *_: None)
    with pytest.raises(EngineError, match="has hooks of your own, and workers load it without them"):
        measured()
    model = load_model(model.module, tokenizer=model.tokenizer)
    with pytest.raises(EngineError, match="A model from memory is not sent to a cluster"):
        measured()


def test_a_persons_own_text_images_and_model_are_sent_along(
    opt_mini: LoadedModel, vit_mini: LoadedModel, tmp_path: Path
) -> None:
    text = tmp_path / "mine.txt"
    text.write_text("\n".join(f"line {n} of a text that only one machine has" for n in range(300)), encoding="utf-8")
    images, labels = fashion_mnist.sample()
    for number in range(8):
        folder = tmp_path / "pictures" / vit_mini.labels[labels[number]].replace("/", "_")
        folder.mkdir(parents=True, exist_ok=True)
        for copy in "ab":  # one of each two files is the evaluation part
            Image.fromarray(images[number]).save(folder / f"{number}{copy}.png")
    for model, ref in ((opt_mini, f"text:{text}"), (vit_mini, f"images:{tmp_path / 'pictures'}")):
        payload = pack_data(ref)
        folder = unpack(payload, payload.digest, tmp_path / "elsewhere")
        assert unpack(payload, payload.digest, tmp_path / "elsewhere") == folder, (
            "another worker has brought it already"
        )
        there = load_data(unpacked_data_ref(ref, folder), model, predictions=30, seq_len=32)
        assert there.fingerprint == load_data(ref, model, predictions=30, seq_len=32).fingerprint
    assert pack_data("python-docs") is None and pack_model("opt-mini") is None and pack_model("owner/name") is None
    folder = bundled.FOLDER / "opt-mini"
    model = pack_model(str(folder))
    assert load_model(str(unpack(model, model.digest, tmp_path / "elsewhere"))).fingerprint == opt_mini.fingerprint
    assert not list((tmp_path / "elsewhere" / "sent").glob(".partial-*"))


def test_files_that_changed_on_the_way_or_lead_out_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="not those that were sent"):
        unpack(Payload({"a": b"changed"}), Payload({"a": b"sent"}).digest, tmp_path)
    sent = Payload({"a": b"sent"})
    digest = sent.digest
    arrived = pickle.loads(pickle.dumps(sent).replace(b"sent", b"bent"))  # noqa: S301 (made in this line)
    with pytest.raises(EngineError, match="not those that were sent"):
        unpack(arrived, digest, tmp_path)
    for name in ("../a", "/tmp/a", ""):
        payload = Payload({name: b"x"})
        with pytest.raises(EngineError, match="not those that were sent"):
            unpack(payload, payload.digest, tmp_path)
    assert not list(tmp_path.rglob("a"))


def test_statistics_as_bytes_are_their_file(opt_mini: LoadedModel, tmp_path: Path) -> None:
    statistics = load_statistics(find_statistics(opt_mini, "python-docs").path, opt_mini)
    path, sent = save_statistics(statistics, tmp_path), statistics_bytes(statistics)
    assert path.stat().st_size == len(sent)
    path.write_bytes(sent)  # not compared byte by byte: safetensors writes the header's entries in any order
    assert load_statistics(path, opt_mini).digest == statistics.digest


def test_without_ray_a_sentence_says_what_to_install(
    opt_mini: LoadedModel, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineError, match=r"pip install -r requirements-cluster\.txt"):
        next(RayBackend().measure(tasks_of(opt_mini, (0, 0)), 100, None, clean_passes.CleanPassCache(opt_mini, data)))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"workers": 0}, "at least 1 worker"),
        ({"gpus": 1.5}, "whole ones"),
        ({"cpus": -1.0}, "cannot take -1 CPUs"),
        ({"memory": float("nan")}, "cannot take nan GB"),
    ],
)
def test_workers_that_cannot_be_are_refused(given: dict, words: str) -> None:
    with pytest.raises(EngineError, match=words):
        RayBackend(**given)


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("ray://127.0.0.1:10001", "no address of a Ray cluster"),
        ("127.0.0.1:" + "9" * 5000, "no address of a Ray cluster"),
        (f"{'a' * 70}:6379", "No Ray cluster answers"),  # longer than a part of a name may be
    ],
)
def test_an_address_that_cannot_be_gets_a_sentence(address: str, words: str) -> None:
    with pytest.raises(EngineError, match=words):
        check_answers(address)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("sweep opt-mini --workers 2", "--workers belongs to --engine ray"),
        ("curve opt-mini --address 127.0.0.1:6379", "--address belongs to --engine ray"),
        ("sweep opt-mini --engine ray --adaptive", "leave --engine out"),
        ("reproduce paper --dry-run --gpus-per-worker 1", "--gpus-per-worker belongs to --engine ray"),
        ("sweep opt-mini --engine ray --gpus-per-worker 1.5", "whole ones"),
    ],
)
def test_options_that_do_not_fit_together_get_a_sentence(
    command: str, words: str, capsys: pytest.CaptureFixture
) -> None:
    assert main(command.split()) == 1
    assert words in capsys.readouterr().err
