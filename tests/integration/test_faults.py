"""What goes wrong around a computation: killed, no room, no right to write, two at once, jumping clocks, changed folders.

Nothing finished is lost, no half file counts, and a person gets one sentence.
"""

import json
import multiprocessing
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from ablation_core import __main__ as cli
from ablation_core import ablate, bundled, compute_statistics, load_data, load_model, load_statistics
from ablation_core.activations import files as cache
from ablation_core.activations.files import check_can_save, list_statistics, other_statistics, save_statistics
from ablation_core.activations.made_from import FORMAT_VERSION
from ablation_core.activations.statistics import Statistics
from ablation_core.data.dataset import Data
from ablation_core.errors import DataError, ModelError, StatisticsError
from ablation_core.methods.registry import METHODS
from ablation_core.models.loaded import LoadedModel
from ablation_core.progress import finished
from ablation_core.runs.ledger import find_runs, open_ledger
from ablation_core.runs.pruning import CurveSpec, curve_steps
from ablation_core.runs.sweep import SweepSpec, sweep_steps
from ablation_core.storage import file_lock, working_folder, write_atomic
from tests.conftest import ROOT, numbers

ZERO = (METHODS["zero"],)
RUN = {"model": {"fingerprint": "f"}, "n": 1}


@pytest.fixture(scope="module")
def statistics(opt_mini: LoadedModel) -> Statistics:
    return compute_statistics(opt_mini, load_data("python-docs", opt_mini, 60, seq_len=16, split="statistics"))


@pytest.fixture(scope="module")
def data(opt_mini: LoadedModel) -> Data:
    return load_data("python-docs", opt_mini, 60, seq_len=16)


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file grows beyond `size` bytes: the system's own refusal, as on a full disk.

    Only inside the test's own lines: pytest's output may be such a file, too.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")


# Killed


@pytest.mark.slow
def test_killed_at_random_moments_all_work_resumes_to_the_undisturbed_end() -> None:
    """Ten of the kills that `python -m benchmarks.kills` makes a hundred of; it checks after each."""
    command = [sys.executable, "-m", "benchmarks.kills", "--kills", "10", "--seed", str(os.getpid())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert counts["kills"] >= 10 and counts["with pieces kept"] > 0


def test_a_ledger_cut_at_any_byte_keeps_every_whole_piece(tmp_path: Path) -> None:
    records = {f"piece {n}": {"value": 1 / (n + 3), "none": None} for n in range(3)}
    with open_ledger(tmp_path, "test", RUN) as ledger:
        for name, record in records.items():
            ledger.add(name, record)
    whole, path = ledger.path.read_bytes(), ledger.path
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        units = max(0, whole[:length].count(b"\n") - 1)
        expected = dict(list(records.items())[:units])
        found = find_runs(tmp_path, "test", "f")
        assert (found[0].done if found else {}) == expected
        with open_ledger(tmp_path, "test", RUN) as cut:
            assert cut.done == expected
            for name in records.keys() - expected.keys():
                cut.add(name, records[name])
            assert cut.done == records
        with open_ledger(tmp_path, "test", RUN) as again:
            assert again.done == records


def test_a_damaged_line_is_measured_again_and_the_others_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("ablation_core.runs.ledger._log.warning", lambda form, *values: said.append(form % values))
    with open_ledger(tmp_path, "test", RUN) as ledger:
        for n in range(3):
            ledger.add(str(n), {"value": n + 0.25})
    whole = ledger.path.read_bytes()
    start = whole.index(b'{"piece": "1"')
    end = whole.index(b"\n", start)
    for damaged in (
        whole.replace(b"1.25", b"1.35"),  # still JSON, still a number, another one
        whole[:start] + b"\0" * (end - start) + whole[end:],  # what a lost block leaves
        whole[:start] + b"[" * 5000 + whole[end:],
        whole[:start] + b"\xff\xfe" + whole[start + 2 :],
        whole[:start] + b'{"piece": "1", "record": 3}' + whole[end:],
        whole[:start] + b"null" + whole[end:],
    ):
        ledger.path.write_bytes(damaged)
        assert find_runs(tmp_path, "test", "f")[0].done.keys() == {"0", "2"}
        said.clear()
        with open_ledger(tmp_path, "test", RUN) as mended:
            assert mended.done == {"0": {"value": 0.25}, "2": {"value": 2.25}}
            assert "1 damaged lines" in said[0] and ledger.path.name in said[0]
            mended.add("1", {"value": 1.25})
        assert sorted(ledger.path.read_bytes().splitlines()) == sorted(whole.splitlines())


def test_any_altered_byte_of_a_piece_is_noticed(tmp_path: Path) -> None:
    with open_ledger(tmp_path, "test", RUN) as ledger:
        ledger.add("a", {"value": 0.1, "more": [1, 2.5, None]})
    whole = bytearray(ledger.path.read_bytes())
    first = whole.index(b"\n") + 1
    key = whole.index(b'"digest"')  # a line without one is an earlier version's
    for place in range(first, len(whole) - 1):
        if not key <= place < key + len('"digest"'):
            altered = whole.copy()
            altered[place] ^= 1
            ledger.path.write_bytes(altered)
            kept = [run.done for run in find_runs(tmp_path, "test", "f")]
            assert kept in ([], [{"a": {"value": 0.1, "more": [1, 2.5, None]}}]), f"byte {place}"


def test_lines_of_earlier_versions_without_a_digest_are_read(tmp_path: Path) -> None:
    with open_ledger(tmp_path, "test", RUN) as ledger:
        ledger.add("newer", {"value": 2})
    with open(ledger.path, "a", encoding="utf-8") as file:
        file.write('{"piece": "old", "record": {"value": 1}}\n')
    with open_ledger(tmp_path, "test", RUN) as again:
        assert again.done == {"newer": {"value": 2}, "old": {"value": 1}}


def test_a_ledger_with_a_strange_first_line_is_left_alone(tmp_path: Path) -> None:
    with open_ledger(tmp_path, "test", RUN) as ledger:
        ledger.add("a", {"value": 1})
    strange = b"X" + ledger.path.read_bytes()
    ledger.path.write_bytes(strange)
    with pytest.raises(StatisticsError, match="Move it away"), open_ledger(tmp_path, "test", RUN):
        pass
    assert ledger.path.read_bytes() == strange


def test_what_killed_writers_left_is_cleared_away_and_never_listed(tmp_path: Path, statistics: Statistics) -> None:
    folder = save_statistics(statistics, tmp_path).parent
    (folder / ".partial-abc.safetensors").write_bytes(b"half")
    assert len(list_statistics(tmp_path)[0]) == 1 and not list_statistics(tmp_path)[1]
    save_statistics(statistics, tmp_path)
    assert len(files(tmp_path)) == 1


# No room


def test_statistics_that_do_not_fit_on_the_disk_leave_nothing(tmp_path: Path, statistics: Statistics) -> None:
    with pytest.raises(StatisticsError, match=r"cannot be written to .*File too large"), room_for(4000):
        save_statistics(statistics, tmp_path)
    assert files(tmp_path) == []


def test_statistics_that_do_not_fit_leave_the_earlier_ones(tmp_path: Path, statistics: Statistics) -> None:
    path = save_statistics(statistics, tmp_path)
    before = path.read_bytes()
    with pytest.raises(StatisticsError, match="cannot be written"), room_for(len(before) // 2):
        save_statistics(statistics, tmp_path)
    assert files(tmp_path) == [path.name] and path.read_bytes() == before


def test_a_sweep_on_a_full_disk_keeps_what_it_has_and_goes_on_later(
    tmp_path: Path, opt_mini: LoadedModel, data: Data
) -> None:
    spec = SweepSpec(ZERO, heads=((0, 0), (3, 1), (5, 5)), random_sets=1)
    undisturbed = finished(sweep_steps(opt_mini, data, spec, None, tmp_path / "undisturbed"))
    size = next((tmp_path / "undisturbed").rglob("*.jsonl")).stat().st_size
    refused = pytest.raises(StatisticsError, match=r"cannot be kept in .*; make room and run it again\.")
    with refused, room_for(size * 2 // 3):
        finished(sweep_steps(opt_mini, data, spec, None, tmp_path / "full"))
    kept = next((tmp_path / "full").rglob("*.jsonl")).read_bytes()
    assert kept.endswith(b"\n") and kept.count(b"\n") == 3, "a first line and two whole pieces"
    assert numbers(finished(sweep_steps(opt_mini, data, spec, None, tmp_path / "full"))) == numbers(undisturbed)


def test_a_run_that_cannot_even_begin_is_a_sentence(tmp_path: Path) -> None:
    run = RUN | {"long": "x" * 5000}
    with pytest.raises(StatisticsError, match="cannot be kept in"), room_for(4000), open_ledger(tmp_path, "test", run):
        pass
    assert files(tmp_path) == []


# No right to write


def _as_nobody(act: Callable[[], list[str]], folder: Path) -> list[str]:
    """What a process answers that has become a user who may read the folder but not write there."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    for parent in folder.parents:  # pytest's own, which are closed to other users
        if parent == Path(tempfile.gettempdir()):
            break
        parent.chmod(0o755)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()

    def become() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        answers.put(act())

    process = context.Process(target=become)
    process.start()
    process.join(60)
    assert process.exitcode == 0
    return answers.get(timeout=10)


def refusal(act: Callable[[], object]) -> str:
    try:
        act()
    except StatisticsError as error:
        return str(error)
    return "not refused"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_folder_that_another_user_may_only_read_is_a_sentence(tmp_path: Path, statistics: Statistics) -> None:
    path = save_statistics(statistics, tmp_path)
    with open_ledger(tmp_path, "test", RUN) as ledger:
        ledger.add("a", {"value": 1})
    before = files(tmp_path)

    def act() -> list[str]:
        assert load_statistics(path).digest == statistics.digest
        assert find_runs(tmp_path, "test", "f")[0].done == {"a": {"value": 1}}
        return [
            refusal(lambda: save_statistics(statistics, tmp_path)),
            refusal(lambda: check_can_save(SimpleNamespace(ref=statistics.provenance["model"]), tmp_path)),
            refusal(lambda: open_ledger(tmp_path, "test", RUN).__enter__()),
            refusal(lambda: open_ledger(tmp_path, "another", RUN).__enter__()),
        ]

    said = _as_nobody(act, tmp_path)
    assert len(said) == 4 and all("Permission denied" in line for line in said), said
    assert files(tmp_path) == before


def test_statistics_that_could_not_be_kept_are_not_computed_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "cache").write_text("a file where the cache folder should be")
    monkeypatch.setattr(
        "ablation_core.activations.collect.compute_statistics", lambda *_, **__: pytest.fail("computed in vain")
    )
    arguments = ["stats", "opt-mini", "--predictions", "60", "--seq-len", "16", "--cache-dir", str(tmp_path / "cache")]
    assert cli.main(arguments) == 1
    assert "Nothing was computed" in capsys.readouterr().err


# Two at once


def _in_two_processes(act: Callable[[], object]) -> list:
    """What two processes answer that do the same at the same moment."""
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(2), context.Queue()

    def both() -> None:
        barrier.wait(60)
        try:
            answers.put(act())
        except Exception as error:  # noqa: BLE001  whatever it is, it is the answer
            answers.put(error)

    processes = [context.Process(target=both) for _ in range(2)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    return found


def test_two_processes_that_keep_the_same_statistics_both_end_well(tmp_path: Path, statistics: Statistics) -> None:
    def keep() -> list[str]:
        return [load_statistics(save_statistics(statistics, tmp_path)).digest for _ in range(20)]

    assert _in_two_processes(keep) == [[statistics.digest] * 20] * 2
    assert len(files(tmp_path)) == 1


@pytest.mark.slow
def test_two_processes_that_compute_the_same_statistics_make_one_file(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ablation_core", "stats", "opt-mini", "--predictions", "200", "--seq-len", "16"]
    command += ["--cache-dir", str(tmp_path), "--json"]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    documents = [json.loads(process.communicate(timeout=120)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert documents[0] == documents[1] and [*tmp_path.rglob("*.safetensors")] == [Path(documents[0]["path"])]
    assert load_statistics(documents[0]["path"]).digest == documents[0]["statistics"]["digest"]


def test_a_second_process_is_told_that_the_run_is_under_way(tmp_path: Path) -> None:
    def open_it() -> str:
        try:
            with open_ledger(tmp_path, "test", RUN) as ledger:
                time.sleep(1.5)
                ledger.add("a", {"value": 1})
                return "kept"
        except StatisticsError as error:
            return str(error)

    one, other = sorted(_in_two_processes(open_it), key=len)
    assert one == "kept" and "under way in another process" in other
    assert find_runs(tmp_path, "test", "f")[0].done == {"a": {"value": 1}}


# A clock that jumps


@pytest.mark.parametrize("jump", [10 * 365 * 86_400, -10 * 365 * 86_400])
def test_a_clock_that_jumps_takes_no_folder_away_from_who_works_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jump: float
) -> None:
    now = time.time()
    with working_folder(tmp_path) as mine:
        (mine / "half a download").write_text("…")
        monkeypatch.setattr(time, "time", lambda: now + jump)
        with working_folder(tmp_path) as other:
            assert other != mine
        assert (mine / "half a download").exists()
    monkeypatch.undo()
    abandoned = tmp_path / ".partial-abandoned"
    abandoned.mkdir()
    os.utime(abandoned, (now - 86_400, now - 86_400))
    with working_folder(tmp_path):
        assert not abandoned.exists(), "what nobody holds goes after an hour"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stamp", [0, 4_000_000_000])
def test_files_dated_long_ago_or_in_the_future_are_found_and_read(
    tmp_path: Path, opt_mini: LoadedModel, statistics: Statistics, data: Data, stamp: int
) -> None:
    path = save_statistics(statistics, tmp_path)
    first = finished(curve_steps(opt_mini, data, CurveSpec(ZERO, seeds=(1,), percents=(50,)), None, tmp_path))
    for file in tmp_path.rglob("*"):
        os.utime(file, (stamp, stamp))
    found = cache.find_statistics(opt_mini, "python-docs", tmp_path)
    assert found.path == path and load_statistics(path, opt_mini).digest == statistics.digest
    again = finished(curve_steps(opt_mini, data, CurveSpec(ZERO, seeds=(1,), percents=(50,)), None, tmp_path))
    assert numbers(again) == numbers(first)


# A model folder that changes or vanishes


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundled.FOLDER / "opt-mini", tmp_path / "model"))


def _measured(model: LoadedModel) -> dict:
    data = load_data("python-docs", model, 60, seq_len=16)
    return numbers(ablate(model, data, "3.2", "zero"))


@pytest.mark.parametrize("stored", [torch.float32, torch.float16])
def test_a_model_in_use_does_not_see_its_folder_change_or_vanish(own_folder: Path, stored: torch.dtype) -> None:
    weights = own_folder / "model.safetensors"
    kind = {torch.float32: np.float32, torch.float16: np.float16}[stored]
    save_file({name: array.astype(kind) for name, array in load_file(weights).items()}, weights, {"format": "pt"})
    model = load_model(str(own_folder))
    before = _measured(model)
    with open(weights, "rb+") as file:  # in place: what maps the file would see it
        length = int.from_bytes(file.read(8), "little")
        file.seek(8 + length)
        file.write(bytes(weights.stat().st_size - 8 - length))
    assert _measured(model) == before
    os.truncate(weights, 0)
    assert _measured(model) == before
    shutil.rmtree(own_folder)
    assert _measured(model) == before
    with pytest.raises(ModelError, match="There is no model"):
        load_model(str(own_folder))


def test_what_was_measured_on_other_weights_is_never_used_for_these(own_folder: Path, tmp_path: Path) -> None:
    model = load_model(str(own_folder))
    counted = load_data("python-docs", model, 60, seq_len=16, split="statistics")
    evaluated = load_data("python-docs", model, 60, seq_len=16)
    path = save_statistics(compute_statistics(model, counted), tmp_path)
    spec = CurveSpec(ZERO, seeds=(1,), percents=(50,))
    first = finished(curve_steps(model, evaluated, spec, None, tmp_path))
    weights = own_folder / "model.safetensors"
    arrays = load_file(weights)
    name = next(name for name in arrays if "layers.2" in name and name.endswith("out_proj.weight"))
    save_file(arrays | {name: arrays[name] * np.float32(1.5).astype(arrays[name].dtype)}, weights, {"format": "pt"})
    changed = load_model(str(own_folder))
    with pytest.raises(StatisticsError, match=r"made from another model: its model_fingerprint is .* Compute them"):
        load_statistics(path, changed)
    assert cache.find_statistics(changed, "python-docs", tmp_path) is None
    assert "model_fingerprint differs" in other_statistics(changed, "python-docs", tmp_path)
    second = finished(curve_steps(changed, evaluated, spec, None, tmp_path))
    assert second.to_dict()["points"] != first.to_dict()["points"]
    assert len([name for name in files(tmp_path / "runs") if name.endswith(".jsonl")]) == 2


def test_a_text_that_vanishes_or_changes_between_two_runs_is_noticed(tmp_path: Path, opt_mini: LoadedModel) -> None:
    text = tmp_path / "mine.txt"
    text.write_text("What comes next is a word. " * 400)
    ref = f"text:{text}"
    first = load_data(ref, opt_mini, 60, seq_len=16)
    text.write_text("What comes now is another. " * 400)
    assert load_data(ref, opt_mini, 60, seq_len=16).fingerprint != first.fingerprint
    text.unlink()
    with pytest.raises(DataError, match="There is no file"):
        load_data(ref, opt_mini, 60, seq_len=16)
    assert first.rows([0]).inputs["input_ids"].shape == (1, 16), "what is loaded stays"


# An older version's files


def _with_format(path: Path, version: int) -> None:
    with safe_open(path, "numpy") as file:
        metadata, arrays = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    made = json.loads(metadata["provenance"]) | {"format": version}
    save_file(arrays, path, metadata | {"provenance": json.dumps(made, sort_keys=True)})


def test_statistics_of_another_format_are_said_so_with_both_versions_and_what_to_do(
    tmp_path: Path, opt_mini: LoadedModel, statistics: Statistics, capsys: pytest.CaptureFixture
) -> None:
    path = save_statistics(statistics, tmp_path)
    _with_format(path, FORMAT_VERSION - 1)
    words = f"has format {FORMAT_VERSION - 1}, this version reads format {FORMAT_VERSION}; compute it again"
    with pytest.raises(StatisticsError, match=words):
        load_statistics(path)
    assert words in other_statistics(opt_mini, "python-docs", tmp_path)
    assert other_statistics(opt_mini, "python-code", tmp_path) == ""
    small = ["--predictions", "60", "--seq-len", "16", "--cache-dir", str(tmp_path)]
    folder = ["--data", "python-docs", "--statistics", str(path)]
    assert cli.main(["ablate", "opt-mini", "--select", "0.0", "--method", "mean", *folder, *small]) == 1
    assert words in capsys.readouterr().err
    assert cli.main(["stats", "opt-mini", *small]) == 0, "what to do does help"
    assert cli.main(["ablate", "opt-mini", "--select", "0.0", "--method", "mean", *small]) == 0


# The room itself


def test_a_file_is_whole_or_absent_and_a_lock_ends_with_its_block(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "b.txt", b"whole")
    assert (tmp_path / "a" / "b.txt").read_bytes() == b"whole" and files(tmp_path) == ["b.txt"]
    assert (tmp_path / "a" / "b.txt").stat().st_mode & 0o777 == 0o644
    with file_lock(tmp_path, wait=False) as mine:
        assert mine
        with pytest.raises(BlockingIOError), file_lock(tmp_path, wait=False):
            pass
    with file_lock(tmp_path, wait=False) as mine:
        assert mine
