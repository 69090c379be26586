"""The model's lock: re-entrant, handed over in the order of asking, left without harm by who gives up."""

import signal
import threading
import time

import pytest

from ablation_core.server.turns import FairLock


def test_a_thread_that_takes_it_again_and_again_keeps_nobody_out() -> None:
    lock, stop, taken = FairLock(), threading.Event(), []

    def greedy() -> None:
        while not stop.is_set():
            with lock, lock:  # re-entrant
                taken.append("greedy")
                time.sleep(0.001)

    thread = threading.Thread(target=greedy)
    thread.start()
    while len(taken) < 3:
        time.sleep(0.001)
    for _ in range(20):
        before = len(taken)
        with lock:
            assert len(taken) <= before + 1, "at most the turn under way"
            taken.append("patient")
    stop.set()
    thread.join()
    assert taken.count("patient") == 20


def test_it_goes_round_in_the_order_of_asking() -> None:
    lock, order, threads = FairLock(), [], []

    def ask(number: int) -> None:
        with lock:
            order.append(number)

    with lock:
        for number in range(5):
            threads.append(threading.Thread(target=ask, args=(number,)))
            threads[-1].start()
            while not lock.waits(threads[-1].ident):
                time.sleep(0.001)
        assert not lock.waits(threading.get_ident()), "who holds it does not wait"
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]


def test_who_gives_up_leaves_the_queue_and_only_the_holder_releases() -> None:
    lock, found = FairLock(), []

    def impatient() -> None:
        found.append(lock.acquire(timeout=0.05))
        found.append(lock.acquire(blocking=False))
        with pytest.raises(RuntimeError):
            lock.release()

    with lock:
        thread = threading.Thread(target=impatient)
        thread.start()
        thread.join()
    assert found == [False, False] and not lock._queue
    assert lock.acquire(blocking=False)
    lock.release()


@pytest.mark.slow
def test_who_is_interrupted_leaves_the_queue() -> None:
    lock, enough, has_it = FairLock(), threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            has_it.set()
            enough.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    has_it.wait(10)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # where tests run behind, it may be ignored
    try:
        threading.Timer(0.05, signal.raise_signal, (signal.SIGINT,)).start()
        with pytest.raises(KeyboardInterrupt):
            lock.acquire(timeout=10)
    finally:
        signal.signal(signal.SIGINT, before)
    assert not lock._queue
    enough.set()
    thread.join()
    assert lock.acquire(blocking=False)
    lock.release()


def test_who_says_that_it_waits_keeps_its_place_and_can_leave() -> None:
    lock, said = FairLock(), []
    enough, has_it = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            has_it.set()
            enough.wait(10)

    def say() -> None:
        said.append(len(lock._queue))
        if len(said) == 3:
            enough.set()

    thread = threading.Thread(target=hold)
    thread.start()
    has_it.wait(10)
    with pytest.raises(StopIteration):
        lock.wait_in_line(0.01, lambda: next(iter(())))
    assert not lock._queue, "who leaves leaves no gap"
    lock.wait_in_line(0.01, say)
    assert said[:3] == [1, 1, 1] and lock._is_owned()
    lock.release()
    thread.join()
    assert lock.acquire(blocking=False)
    lock.release()
