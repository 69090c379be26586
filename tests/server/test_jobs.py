"""Jobs: they grow, stop, wait for each other, end with a sentence, and give up when nobody looks."""

import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from ablation_core.errors import AblationError, DataError
from ablation_core.server import jobs


def shares(count: int, gate: threading.Event | None = None) -> Iterator[SimpleNamespace]:
    for number in range(count + 1):
        yield SimpleNamespace(share=number / count)
        if gate is not None:
            gate.wait(10)


def ended(job: jobs.Job) -> jobs.Job:
    job.wait(10)
    assert not job.running
    return job


def test_a_job_runs_to_its_end_and_keeps_the_last_result() -> None:
    job = ended(jobs.Jobs().start("a", "counting", lambda: shares(5)))
    assert (job.share, job.error) == (1.0, None)


def test_the_same_run_is_watched_and_not_begun_twice() -> None:
    gate, all_jobs = threading.Event(), jobs.Jobs()
    first = all_jobs.start("a", "counting", lambda: shares(5, gate))
    assert all_jobs.start("a", "counting", lambda: shares(5)) is first
    gate.set()
    ended(first)
    assert all_jobs.start("a", "counting", lambda: shares(5)) is not first, "an ended one begins anew"


def test_stop_returns_at_once_and_the_next_start_waits_for_the_file() -> None:
    gate, all_jobs, order = threading.Event(), jobs.Jobs(), []

    def run(name: str) -> Iterator[SimpleNamespace]:
        order.append(f"{name} opens")
        try:
            yield from shares(5, gate if name == "first" else None)
        finally:
            order.append(f"{name} closes")

    first = all_jobs.start("a", "counting", lambda: run("first"))
    first.stop()
    assert first.stopping and not all_jobs.running()
    second = all_jobs.start("a", "counting", lambda: run("second"))
    gate.set()
    ended(second)
    assert order == ["first opens", "first closes", "second opens", "second closes"]
    assert first.share < 1 and first.error is None


def test_an_error_of_the_core_is_its_sentence_and_a_defect_has_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda args: None)

    def failing(error: Exception) -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(share=0.5)
        raise error

    job = ended(jobs.Jobs().start("a", "x", lambda: failing(DataError("There is no data."))))
    assert (job.error, job.share) == ("There is no data.", 0.5)
    assert "defect" in ended(jobs.Jobs().start("a", "x", lambda: failing(KeyError("oops")))).error


def test_only_so_many_run_at_once() -> None:
    gate, all_jobs = threading.Event(), jobs.Jobs()
    under_way = [all_jobs.start(str(n), f"run {n}", lambda: shares(2, gate)) for n in range(jobs.MOST_AT_ONCE)]
    with pytest.raises(AblationError, match="run 0; run 1"):
        all_jobs.start("more", "more", lambda: shares(2))
    gate.set()
    for job in under_way:
        ended(job)
    ended(all_jobs.start("more", "more", lambda: shares(2)))


def test_a_job_that_nobody_looks_at_ends() -> None:
    def endless() -> Iterator[SimpleNamespace]:
        while True:
            yield SimpleNamespace(share=0.1)
            time.sleep(0.01)

    job = jobs.Jobs(patience=0.2).start("a", "endless", endless)
    for _ in range(10):
        job.look()
        time.sleep(0.05)
    assert job.running, "watched, it goes on"
    assert ended(job).error is None


def test_time_left_is_at_the_pace_since_this_start() -> None:
    gate = threading.Event()

    def resumed() -> Iterator[SimpleNamespace]:
        yield SimpleNamespace(share=0.5)  # what an earlier run left
        time.sleep(0.2)
        yield SimpleNamespace(share=0.75)
        gate.wait(10)

    job = jobs.Jobs().start("a", "x", resumed)
    while job.share < 0.75:
        assert job.seconds_left is None
        time.sleep(0.005)
    assert 0.15 < job.seconds_left < 0.6, "a quarter took 0.2 s, a quarter is left"
    gate.set()
    ended(job)


def test_what_a_run_takes_to_begin_is_not_its_pace() -> None:
    gate = threading.Event()

    def slow_to_begin() -> Iterator[SimpleNamespace]:
        for _ in range(20):  # a cluster's workers load the model
            yield SimpleNamespace(share=0.0)
            time.sleep(0.05)
        yield SimpleNamespace(share=0.5)
        gate.wait(10)

    job = jobs.Jobs().start("a", "x", slow_to_begin)
    while job.share < 0.5:
        assert job.seconds_left is None
        time.sleep(0.005)
    assert job.seconds_left < 0.7, "half took 0.05 s, after a second of nothing"
    gate.set()
    ended(job)


@pytest.mark.parametrize(
    ("seconds", "words"), [(None, ""), (0.4, ", 0 s left"), (59.6, ", 1 min 0 s left"), (184.2, ", 3 min 4 s left")]
)
def test_the_time_left_in_words(seconds: float | None, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs.Job, "seconds_left", seconds)
    job = jobs.Jobs().start("a", "x", lambda: (SimpleNamespace(share=share) for share in (0.5, 1.0)))
    assert job.time_left == words
    ended(job)


def test_a_job_ends_when_the_last_of_those_who_watch_it_goes() -> None:
    def endless() -> Iterator[SimpleNamespace]:
        while True:
            yield SimpleNamespace(share=0.1)
            time.sleep(0.01)

    job = jobs.Jobs().start("a", "endless", endless)
    job.look("one")
    job.look("another")
    job.leave("one")
    time.sleep(0.1)
    assert job.running and not job.stopping
    job.leave("another")
    ended(job)


def test_what_a_job_found_outlives_the_next_ones_but_not_for_ever() -> None:
    all_jobs = jobs.Jobs()
    for number in range(jobs._ENDED + 5):
        ended(all_jobs.start(str(number), "x", lambda: shares(1)))
    assert all_jobs.get("5").share == 1.0 and all_jobs.get("0") is None


def test_only_who_started_a_run_may_stop_it_while_they_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    job = jobs.Jobs().start("a", "counting", lambda: shares(5, gate), owner="anna")
    job.look("ben")
    assert job.may_be_stopped_by("anna") and not job.may_be_stopped_by("ben")
    monkeypatch.setattr(jobs, "_OWNER_PRESENT", 0.05)
    time.sleep(0.1)
    job.look("ben")
    assert job.may_be_stopped_by("ben"), "who started it has gone"
    job.look("anna")
    assert not job.may_be_stopped_by("ben"), "and is back"
    gate.set()
    ended(job)
    assert ended(jobs.Jobs().start("b", "counting", lambda: shares(1))).may_be_stopped_by("ben"), "nobody's own"
