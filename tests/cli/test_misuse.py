"""Numbers that read wrongly, and misuse that ends badly: each kind has its sentence, or its right number."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ablation_core import AblationError, ablate, load_data
from ablation_core.__main__ import main
from ablation_core.cli.text.curves import format_curve
from ablation_core.cli.text.phrases import ordinal
from ablation_core.cli.text.runs import format_sweep
from ablation_core.data.positions import Positions
from ablation_core.models.loaded import LoadedModel
from ablation_core.report.code import ablation_command
from ablation_core.runs.pruning_result import CurveResult
from ablation_core.runs.sweep_result import SweepResult
from ablation_core.runs.whole_runs import sweep

DESCRIBED = {
    "model": {"ref": "a-model-with-quite-a-long-name"},
    "data": {"ref": "text:some/where/long.txt", "predictions": 1234, "sequences": 56},
}


@pytest.fixture
def loaded(opt_mini: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands use the model that is loaded already; what it gives is the same."""
    monkeypatch.setattr("ablation_core.loading.load.load_model", lambda *_, **__: opt_mini)


def row(change: float, p: float | None) -> dict:
    interval = {"mean": change, "low": change - 0.001, "high": change + 0.001}
    names = ("loss", "top1", "top10", "kl")
    return {
        "method": "mean",
        **dict.fromkeys(names, 1.0),
        "change": dict.fromkeys(names, interval),
        "p_values": dict.fromkeys(names, p),
    }


def swept(p: float | None, heads: int = 36) -> SweepResult:
    names = tuple(f"{head // 6}.{head % 6}" for head in range(heads))
    rows = {name: {"mean": row(0.01 * number, p)} for number, name in enumerate(names)}
    return SweepResult(DESCRIBED | {"methods": ["mean"], "bins": 100, "statistics": None}, None, rows, names)


def test_a_sweep_says_what_it_measured_and_how_many_heads_it_does_not_show() -> None:
    text = format_sweep(swept(1e-6))
    assert "a-model-with-quite-a-long-name on 1,234 predictions (56 sequences) of text:some/where/long.txt" in text
    assert "change of loss" in text and "nats per prediction" in text
    assert "36 of 36 heads significant" in text and "26 more: --json" in text


def test_a_sweep_without_any_test_does_not_say_that_nothing_was_found() -> None:
    text = format_sweep(swept(None))
    assert "no test was possible over 56 sequences" in text and "0 of 36" not in text
    assert "0 of 36 heads significant" in format_sweep(swept(0.9))


def test_a_real_sweep_of_one_sequence_has_no_test(opt_mini: LoadedModel, tmp_path: Path) -> None:
    data = load_data("python-docs", opt_mini, predictions=20, seq_len=32)
    assert data.sequences == 1
    result = sweep(opt_mini, data, "zero", heads=[(0, 0), (5, 1)], random_sets=0, cache=tmp_path)
    assert "no test was possible" in format_sweep(result)


def curves(percents: list[int], methods: list[str]) -> CurveResult:
    point = {"loss": 4.0, "top1": 0.3, "top10": 0.5, "kl": 0.1, "perplexity": 54.6}
    points = {
        (seed, percent): {method: {"method": method, **point} for method in methods}
        for seed in (1, 2, 3)
        for percent in percents
    }
    return CurveResult(DESCRIBED | {"methods": methods, "seeds": [1, 2, 3], "percents": percents}, None, points)


def test_curves_print_the_percents_that_were_asked_for_in_columns_that_hold() -> None:
    lines = format_curve(curves([10, 30], ["mean", "resample-characters"])).splitlines()
    shown = [line for line in lines if "% " in line[:6]]
    assert [line[:3].strip() for line in shown] == ["10", "10", "30", "30"]
    assert len({line.index("(") for line in shown}) == 1  # one column, whatever the methods are called
    usual = format_curve(curves(list(range(0, 101, 10)), ["mean"]))
    assert " 50% mean" in usual and " 10% mean" not in usual and "other percents: --json" in usual


def test_missing_statistics_are_named_with_the_command_and_what_there_is(
    loaded: None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    place = tmp_path / "x.txt"
    place.write_text("Some words to read, and to predict.\n" * 400)
    words = ["--data", f"text:{place}", "--predictions", "50", "--seq-len", "32", "--cache-dir", str(tmp_path)]
    assert main(["ablate", "opt-mini", "--select", "0.0", "--method", "mean", *words]) == 1
    said = capsys.readouterr().err
    assert f"stats opt-mini --data text:{place} --cache-dir {tmp_path}" in said
    assert "--statistics python-code" in said and "python-docs" in said
    assert (
        main(["ablate", "opt-mini", "--select", "0.0", "--method", "mean", *words, "--statistics", "python-docs"]) == 0
    )


def test_another_cache_folder_finds_what_comes_with_the_project(
    loaded: None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ["--predictions", "50", "--seq-len", "32", "--cache-dir", str(tmp_path / "other"), "--json"]
    assert main(["ablate", "opt-mini", "--select", "0.0", "--method", "mean", *words]) == 0
    assert json.loads(capsys.readouterr().out)["statistics"]["data"] == "python-docs"


def test_a_task_takes_its_constants_from_the_models_usual_data(capsys: pytest.CaptureFixture[str]) -> None:
    """Prompts of one form show a few of the values that a neuron takes; which statistics were taken is said."""
    command = [
        "ablate",
        "opt-mini",
        "--data",
        "task:induction",
        "--select",
        "4.5",
        "--positions",
        "last",
        "--predictions",
        "8",
        "--json",
    ]
    assert main(command) == 0
    said = capsys.readouterr()
    assert "statistics of python-docs, as there are none of task:induction" in said.err
    document = json.loads(said.out)
    assert document["statistics"]["data"] == "python-docs" and document["results"][0]["method"] == "peak"


def test_documents_and_skipped_positions_from_the_command_line(
    loaded: None, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    place = tmp_path / "x.jsonl"
    place.write_text("".join(json.dumps({"body": f"Some words to read, {n} times."}) + "\n" for n in range(40)))
    words = ["--data", f"jsonl:{place}#body", "--documents", "--skip-first", "2", "--json"]
    assert main(["ablate", "opt-mini", "--select", "0.0", "--method", "zero", *words]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["data"]["sequences"] == 20 and document["provenance"]["windows"] == "documents"
    assert document["positions_spared"] == 2
    assert main(["ablate", "opt-mini", "--select", "0.0", "--method", "zero", "--skip-first", "-1"]) in (1, 2)
    assert "Traceback" not in capsys.readouterr().err


def test_a_copied_command_keeps_every_setting(opt_mini: LoadedModel) -> None:
    from ablation_core import load_statistics
    from ablation_core.activations.files import find_statistics

    entry = find_statistics(opt_mini, "python-docs")
    assert entry is not None
    statistics = load_statistics(entry.path, opt_mini)
    data = load_data("python-docs", opt_mini, predictions=50, seq_len=32)
    result = ablate(opt_mini, data, "0.0", "mean", statistics=statistics, positions="2-")
    assert "--positions 2-" in ablation_command(result, statistics)


def test_every_argument_that_changes_a_number_is_in_the_result(opt_mini: LoadedModel) -> None:
    data = load_data("python-docs", opt_mini, predictions=200, seq_len=32)
    one, other = (ablate(opt_mini, data, "0.0", "resample-dataset", seed=seed).to_dict() for seed in (7, 8))
    assert (one["seed"], other["seed"]) == (7, 8)
    assert one["results"][0]["loss"] != other["results"][0]["loss"]
    made = one["provenance"]
    assert {"date", "device", "dtype", "threads", "windows", "notes", "versions"} <= made.keys()
    assert {"ablation-explorer", "python", "torch", "transformers"} <= made["versions"].keys()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda model, data: ablate(model, data, "0.0", "zero", positions=Positions.after(-1)), "0 or more"),
        (lambda model, data: ablate(model, data, "0.0", "mean", statistics=3.5), "cannot be a float"),
        (lambda model, data: ablate(model, data, "0.0", "mean", statistics="no-such-data"), "stats opt-mini --data"),
        (lambda model, data: ablate(model, data, object(), "zero"), "selection"),
        (lambda model, data: load_data("python-docs", model, predictions=2.5), "whole number"),
        (lambda model, data: load_data("python-docz", model), "no data set"),
    ],
)
def test_misuse_in_python_gets_one_sentence(opt_mini: LoadedModel, call: Callable, words: str) -> None:
    data = load_data("python-docs", opt_mini, predictions=20, seq_len=32)
    with pytest.raises(AblationError, match=words):
        call(opt_mini, data)


def test_ranks_and_single_sequences_read_as_english() -> None:
    read = {
        1: "1st",
        2: "2nd",
        3: "3rd",
        4: "4th",
        11: "11th",
        12: "12th",
        13: "13th",
        33: "33rd",
        100: "100th",
        101: "101st",
    }
    assert {number: ordinal(number) for number in read} == read
    one = swept(None)
    alone = SweepResult(
        one.description | {"data": DESCRIBED["data"] | {"sequences": 1}}, one.baseline, one.rows, one.wanted
    )
    assert "(1 sequence)" in format_sweep(alone) and "over 1 sequence," in format_sweep(alone)


def test_a_file_in_place_of_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "weights.pth").write_bytes(b"0")
    assert main(["ablate", str(tmp_path / "weights.pth"), "--select", "1.1"]) == 1
    assert "is a file. A model is a folder" in capsys.readouterr().err


@pytest.mark.parametrize(("words", "says"), [(["help"], "COMMAND"), (["help", "ablate"], "--select SELECT")])
def test_the_word_help_is_understood(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(words)
    assert left.value.code == 0 and says in capsys.readouterr().out


def test_an_empty_name_is_not_the_usual_data_or_models(loaded: None, capsys: pytest.CaptureFixture) -> None:
    """As a shell leaves it of a variable that is not set: other data, or all of the paper's models, would be run."""
    assert main(["ablate", "opt-mini", "--select", "0.0", "--method", "zero", "--data", "", "--predictions", "20"]) == 1
    assert "There is no data set ''" in capsys.readouterr().err


def test_an_empty_list_of_models_is_not_the_papers(capsys: pytest.CaptureFixture) -> None:
    assert main(["reproduce", "paper", "--dry-run", "--models", ""]) == 1
    assert "There is no model ''" in capsys.readouterr().err


def test_a_result_that_cannot_be_printed_ends_in_a_sentence(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

        def flush(self) -> None: ...

        def fileno(self) -> int:
            raise OSError

    for stream, words in ((Full(), "No space left on device"), (None, "standard output is closed")):
        monkeypatch.setattr("sys.stdout", stream)
        assert main(["models"]) == 1
        assert f"error: The result cannot be printed: {words}" in capsys.readouterr().err
