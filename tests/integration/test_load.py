"""Many at once: threads that share a server's models get what each would get alone, to the bit, and leave nothing.

`python -m benchmarks.load` does the same with real sessions, for minutes.
"""

import gc
import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random
from types import SimpleNamespace
from weakref import ref as weak

import pytest
import streamlit as st
from streamlit.proto.Progress_pb2 import Progress
from streamlit.runtime.scriptrunner import StopException
from streamlit.testing.v1 import AppTest
from torch import nn

from ablation_core import bundled, load_data, load_model
from ablation_core.activations.by_position import by_position
from ablation_core.activations.files import find_statistics, load_statistics
from ablation_core.activations.statistics import Statistics
from ablation_core.data.user_input import prompt
from ablation_core.engine.clean_passes import CleanPassCache
from ablation_core.experiments.ablation import AblationRun
from ablation_core.experiments.estimate import EstimateRun
from ablation_core.experiments.noise_floor import noise_floor_steps
from ablation_core.experiments.predictions.per_prediction import effect_per_prediction
from ablation_core.experiments.spec import AblationSpec
from ablation_core.experiments.user_input import UserInputRun
from ablation_core.methods.registry import METHODS, USUAL, usable_methods
from ablation_core.models.loaded import LoadedModel
from ablation_core.runs.sweep import SweepSpec, sweep_steps
from ablation_core.selection import Selection
from ablation_core.server import head_map, turns
from ablation_core.server.jobs import Jobs
from ablation_core.server.lru import LRU
from ablation_core.ui import shared as server
from ablation_core.ui.ablation import job as ablation_job
from ablation_core.ui.shared import SEED
from tests.conftest import ROOT, numbers
from tests.ui.test_pages import box

pytestmark = pytest.mark.slow
THREADS = 12
PREDICTIONS = 150  # two windows of text
TEXT, IMAGES = "python-docs", "fashion-mnist"
MODELS = ("opt-mini", "roberta-mini", "vit-mini")


@pytest.fixture(autouse=True)
def _nothing_shared() -> Iterator[None]:
    """Each test begins and ends with a server that has nothing loaded."""
    st.cache_resource.clear()
    yield
    st.cache_resource.clear()


def hooks_on(module: nn.Module) -> list[str]:
    """Every hook, and every forward that somebody replaced, in a module and its parts."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [
        f"{name} {kind}"
        for name, part in module.named_modules()
        for kind in (*kinds, "forward")
        if (kind in vars(part) if kind == "forward" else getattr(part, kind))
    ]


# Each kind of work a page does, as a function of what a session has: (model, data, recording, statistics, selection).


def ablated(model, data, clean_cache, statistics, selection) -> object:
    wanted = (*USUAL, "resample-tokens", "resample-pixels")
    names = [name for name in usable_methods(data, model.modality) if name in wanted]
    spec = AblationSpec(selection, tuple(METHODS[name] for name in names), 100, SEED)
    run = AblationRun(model, data, spec, statistics, clean_cache).finish()
    harms = {name: harm.after.tolist() for name, harm in effect_per_prediction(run).items()}
    return numbers(run.result()), harms, next(noise_floor_steps(clean_cache, selection, statistics, SEED), None)


def estimated(model, data, clean_cache, statistics, selection) -> object:
    run = EstimateRun(model, data, [METHODS["mean"], METHODS["resample-dataset"]], statistics=statistics)
    return numbers(run.finish().result())


def answered(model, data, clean_cache, statistics, selection) -> object:
    if model.modality != "causal":
        return by_position(model, data, 2, 8).mean.tolist()
    own = prompt(model, "The return statement may only occur inside a function", TEXT)
    spec = AblationSpec(selection, (METHODS["zero"], METHODS["peak"]), 100, SEED)
    run = UserInputRun(model, own, spec, statistics)
    answer = run.answer()
    written = list(run.continuations(3))[-1]
    return answer.before.tolist(), {name: after.tolist() for name, after in answer.after.items()}, written, run.losses()[0].tolist()  # fmt: skip


KINDS: dict[str, Callable] = {"ablated": ablated, "estimated": estimated, "answered": answered}
TASKS = [(model, kind, 1 + number % 3) for number, (model, kind) in enumerate((m, k) for m in MODELS for k in KINDS)]


def selection_of(number: int, model: LoadedModel) -> Selection:
    return Selection.parse(("1.1", "0.2:1-5 3.0", "4.*")[number - 1], model.shape)


def alone(task: tuple[str, str, int]) -> object:
    """What the task gives to somebody who has the machine to themselves."""
    name, kind, number = task
    model = load_model(name)
    data = load_data(IMAGES if model.modality == "vision" else TEXT, model, PREDICTIONS + number, seed=SEED)
    return KINDS[kind](model, data, CleanPassCache(model, data), statistics_of(model), selection_of(number, model))


def shared(task: tuple[str, str, int]) -> object:
    """The same from what the sessions of a server share."""
    name, kind, number = task
    model = server.shared_model(name)
    data = server.shared_data(model, IMAGES if model.modality == "vision" else TEXT, PREDICTIONS + number, "evaluation")
    entry = find_statistics(model, data.ref)
    statistics = server.shared_statistics(model, entry)
    clean_cache = server.shared_clean_passes(model, data)
    return KINDS[kind](model, data, clean_cache, statistics, selection_of(number, model))


def statistics_of(model: LoadedModel) -> Statistics:
    entry = find_statistics(model, IMAGES if model.modality == "vision" else TEXT)
    return load_statistics(entry.path, model)


def at_once(works: list[Callable[[], object]]) -> list[object]:
    """What so many threads give that begin at the same moment."""
    barrier = threading.Barrier(len(works))

    def begin(work: Callable[[], object]) -> object:
        barrier.wait(60)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result(200) for future in [pool.submit(begin, work) for work in works]]


def differences(
    tasks: list[list[tuple]], work: Callable[[tuple], object], expected: dict[tuple, object]
) -> list[tuple]:
    """The tasks whose outcome in one of the threads is not the expected one."""

    def one(mine: list[tuple]) -> list[tuple]:
        return [task for task in mine if work(task) != expected[task]]

    return [task for wrong in at_once([lambda mine=mine: one(mine) for mine in tasks]) for task in wrong]


def test_twelve_threads_get_what_each_gets_alone_and_leave_no_hook() -> None:
    """Three models, nine kinds of work, results compared to the bit; five data sets are shared by two recordings' room."""
    expected = {task: alone(task) for task in TASKS}
    shuffled = [Random(number).sample(TASKS, 2) for number in range(THREADS)]
    assert {task for mine in shuffled for task in mine} == set(TASKS)
    assert differences(shuffled, shared, expected) == []
    for name in MODELS:
        assert hooks_on(server.shared_model(name).module) == []


def test_models_opened_at_the_same_moment_load_as_they_do_alone() -> None:
    """transformers changes global functions while it loads; what was loaded beside something else lacked weights."""
    alone_first = {name: load_model(name).fingerprint for name in MODELS}
    found = at_once([lambda name=name: (name, load_model(name).fingerprint) for name in (*MODELS, *MODELS[:2])])
    assert dict(found) == alone_first
    assert {name: load_model(name).fingerprint for name in MODELS} == alone_first, "nor is anything left behind"


def test_the_comparison_sees_a_missing_lock() -> None:
    """So that the test above means something: without the lock the same threads give other numbers, or fail."""

    class NoLock:
        def __enter__(self) -> None: ...

        def __exit__(self, *_error: object) -> None: ...

    model = load_model("opt-mini")
    model.lock = NoLock()
    data = load_data(TEXT, model, PREDICTIONS)
    statistics = statistics_of(model)

    def work(task: tuple[str, str, int]) -> object:
        try:
            return ablated(model, data, CleanPassCache(model, data), statistics, selection_of(task[2], model))
        except Exception as error:  # noqa: BLE001  hooks of others may break a run in any way
            return error

    tasks = [("opt-mini", "ablated", number) for number in (1, 2, 3)]
    expected = {task: ablated(model, data, CleanPassCache(model, data), statistics, selection_of(task[2], model)) for task in tasks}  # fmt: skip
    assert differences([tasks] * 3, work, expected)


def test_sweeps_beside_each_other_and_an_interrupted_one_give_the_numbers_of_one_alone(tmp_path: Path) -> None:
    model = server.shared_model("opt-mini")
    data = server.shared_data(model, TEXT, PREDICTIONS, "evaluation")
    statistics, spec = statistics_of(model), SweepSpec((METHODS["mean"],), heads=((0, 1), (5, 2)), random_sets=1)  # fmt: skip
    fresh = load_model("opt-mini")

    def whole(used: LoadedModel, folder: Path) -> dict:
        *_, last = sweep_steps(used, data, spec, statistics, folder)
        return numbers(last)

    def left(number: int) -> None:  # a person who starts and leaves, again and again
        for _ in range(3):
            steps = sweep_steps(model, data, spec, statistics, tmp_path / f"left {number}")
            next(steps), next(steps)
            steps.close()

    expected = whole(fresh, tmp_path / "alone")
    works = [lambda n=n: whole(model, tmp_path / str(n)) for n in range(3)] + [lambda n=n: left(n) for n in range(3)]
    assert [result for result in at_once(works) if result is not None] == [expected] * 3
    assert hooks_on(model.module) == []


# Bounded, and released


def folders(parent: Path, count: int) -> list[str]:
    source = bundled.FOLDER / "vit-mini"
    return [str(shutil.copytree(source, parent / f"model {number}")) for number in range(count)]


def test_models_recordings_and_data_are_few_and_what_is_evicted_is_released(tmp_path: Path) -> None:
    models, recordings, kept_data = [], [], []
    for number, ref in enumerate(folders(tmp_path, 8)):
        model = server.shared_model(ref)
        data = server.shared_data(model, IMAGES, 20 + number, "evaluation")
        clean_cache = server.shared_clean_passes(model, data)
        spec = AblationSpec(selection_of(1, model), (METHODS["zero"], METHODS["resample-pixels"]))
        AblationRun(model, data, spec, None, clean_cache).finish().result()
        models.append(weak(model))
        recordings.append(weak(clean_cache))
        kept_data.append(weak(data))
        del model, data, clean_cache, spec
    gc.collect()
    alive = [sum(one() is not None for one in kind) for kind in (models, recordings, kept_data)]
    assert alive[0] <= 3 and alive[1] <= 2 and alive[2] <= 6, alive
    assert models[-1]() is not None and models[0]() is None, "the oldest goes first"


def test_an_evicted_model_that_an_open_page_still_shows_is_not_loaded_twice(tmp_path: Path) -> None:
    first, *others = folders(tmp_path, 5)
    shown = server.shared_model(first)
    for ref in others:
        server.shared_model(ref)
    assert server.shared_model(first) is shown


def test_a_changed_folder_is_loaded_anew_and_a_vanished_one_is_a_sentence(tmp_path: Path) -> None:
    (ref,) = folders(tmp_path, 1)
    before = server.shared_model(ref)
    assert server.shared_model(ref) is before
    shutil.copy(bundled.FOLDER / "vit-mini" / "model.safetensors", Path(ref) / "new")
    with open(Path(ref) / "new", "rb+") as file:  # the last weight's last bytes
        file.seek(-4, 2)
        file.write(b"\0\0\x80\x3f")
    (Path(ref) / "new").replace(Path(ref) / "model.safetensors")
    after = server.shared_model(ref)
    assert after is not before and after.fingerprint != before.fingerprint
    shutil.rmtree(ref)
    with pytest.raises(Exception, match="There is no model"):
        server.shared_model(ref)


def test_an_ended_job_keeps_neither_the_model_nor_the_job_before_it() -> None:
    class Big: ...

    jobs, kept = Jobs(), []
    for _ in range(3):
        big = Big()
        kept.append(weak(big))
        job = jobs.start("same", "a run", lambda big=big: iter_of(big))
        kept.append(weak(job))
        job.wait(10)
        assert job.error is None and job.share == 1.0
    del big, job
    gc.collect()
    assert [one() is not None for one in kept] == [False] * 5 + [True], "the last job, for its result"


def iter_of(_big: object) -> Generator[SimpleNamespace]:
    yield SimpleNamespace(share=1.0)


def page(**parameters: str) -> AppTest:
    test = AppTest.from_file(str(ROOT / "pages" / "ablate.py"), default_timeout=120)
    for name, value in ({"model": "vit-mini", "predictions": "500"} | parameters).items():
        test.query_params[name] = value
    return test


def run_until(test: AppTest, done: Callable[[], bool]) -> AppTest:
    """Look at the page again and again, as its own timer does, until its job is done."""
    for _ in range(200):
        assert not test.run().exception
        if done():
            return test
    raise AssertionError("the page's job does not end")


def test_kept_results_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.shared_results(), "_Cache__maxsize", 2)
    for head in ("0.0", "1.0", "2.0"):
        run_until(page(model="opt-mini", select=head), lambda head=head: head in kept_selections())
    assert kept_selections() == ["1.0", "2.0"]


def kept_selections() -> list[str]:
    return [outcome.result.select for outcome in list(server.shared_results().values())]


def test_estimates_dropped_by_others_do_not_end_a_run(monkeypatch: pytest.MonkeyPatch, vit_mini: LoadedModel) -> None:
    class Crowded(LRU):
        """A store that others fill up at once after each write."""

        def __setitem__(self, key: str, value: object) -> None:
            super().__setitem__(key, value)
            if key == "mine":
                for number in range(int(self.maxsize)):
                    self.pop(f"other {number}", None)
                    super().__setitem__(f"other {number}", value)

    data = load_data(IMAGES, vit_mini, 100)
    store, spec = Crowded(16), SweepSpec((METHODS["zero"],), heads=((0, 0),))
    shares = [one.share for one in head_map.estimate_steps(vit_mini, data, spec, None, store, "mine")]
    assert shares[-1] == 1.0 and "mine" not in store


# Waiting


@contextmanager
def held_elsewhere(model: LoadedModel) -> Iterator[threading.Event]:
    """Somebody else has the model, until the event is set or the block ends."""
    has_it, enough, lock = threading.Event(), threading.Event(), turns.fair_lock(model)

    def hold() -> None:
        with lock:
            has_it.set()
            enough.wait(60)

    thread = threading.Thread(target=hold)
    thread.start()
    has_it.wait(10)
    try:
        yield enough
    finally:
        enough.set()
        thread.join()


def test_who_waits_is_told_so_again_and_again_and_then_gets_the_model(
    monkeypatch: pytest.MonkeyPatch, vit_mini: LoadedModel
) -> None:
    monkeypatch.setattr(turns, "_PATIENCE", 0.02)
    said: list[str] = []
    with held_elsewhere(vit_mini) as enough:

        def say(words: str) -> None:
            said.append(words)
            if len(said) == 3:
                enough.set()

        with turns.turn(vit_mini, say):
            assert len(said) >= 3 and vit_mini.lock._is_owned()
            with turns.turn(vit_mini, pytest.fail):
                pass  # nobody waits for themselves
    assert all("Waiting for vit-mini, which another computation" in words for words in said)


def test_who_waits_can_leave_and_leaves_the_model_to_others(
    monkeypatch: pytest.MonkeyPatch, vit_mini: LoadedModel
) -> None:
    monkeypatch.setattr(turns, "_PATIENCE", 0.02)

    def leave(_words: str) -> None:
        raise StopException

    with held_elsewhere(vit_mini) as enough:
        with pytest.raises(StopException), turns.turn(vit_mini, leave):
            pytest.fail("had no turn")
        assert not enough.is_set(), "long before the other was done"
    assert vit_mini.lock.acquire(timeout=1)
    vit_mini.lock.release()


def test_a_page_says_that_it_waits_and_who_waits_can_ask_for_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablation_job, "PROMPT", 0.2)  # the page is drawn while its job waits
    model = server.shared_model("vit-mini")
    with held_elsewhere(model):
        began = time.monotonic()
        test = page(select="3.1").run()
        assert not test.exception
        assert turns.waiting_words(model.ref) in [bar.text for bar in progress_bars(test)]
        box(test, "select").set_value("4.2").run()
        assert not test.exception and turns.waiting_words(model.ref) in [bar.text for bar in progress_bars(test)]
        assert time.monotonic() - began < 30, "long before the other is done"
        assert len(server.shared_ablations().running()) == 1, "what was asked for first is given up"
    run_until(test, lambda: bool(kept_selections()))
    assert kept_selections() == ["4.2"]


def progress_bars(test: AppTest) -> list[Progress]:
    return [element.proto for element in test.get("progress")]


def test_a_step_taken_in_turns_yields_what_the_steps_yield(vit_mini: LoadedModel) -> None:
    held: list[bool] = []

    def steps() -> Iterator[int]:
        for number in range(3):
            held.append(vit_mini.lock._is_owned())
            yield number

    free = []
    for number in turns.in_turns(vit_mini, steps(), print):
        free.append((number, vit_mini.lock._is_owned()))
    assert held == [True] * 3 and free == [(0, False), (1, False), (2, False)]
