"""`compare` and `saved` on the command line."""

import json
from pathlib import Path

import pytest

from ablation_core import ablate, load_data
from ablation_core.models.loaded import LoadedModel
from tests.cli.test_commands import run

SMALL = ("--predictions", "150", "--seq-len", "32", "--method", "zero")


def test_compare_prints_one_json_document(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    words = ("compare", "opt-mini", "--data", "python-docs", "--data", "python-code", "--select", "5.0 5.2", *SMALL)
    code, out, _ = run(capsys, *words, "--cache-dir", str(tmp_path), "--save", "apart", "--json")
    document = json.loads(out)
    assert code == 0 and document["method"] == "zero" and document["paired"] is False
    assert [data["ref"] for data in document["data"]] == ["python-docs", "python-code"]
    assert [row["head"] for row in document["heads"]] == ["5.0", "5.2"]
    for row in document["heads"]:
        one, other = (change["loss"]["mean"] for change in row["changes"])
        assert row["difference"]["loss"]["mean"] == pytest.approx(other - one)
        assert {"mean", "low", "high"} == set(row["difference"]["loss"]) and 0 <= row["p"] <= row["q"] <= 1
    code, out, _ = run(capsys, "saved", "show", "apart", "--cache-dir", str(tmp_path), "--json")
    kept = json.loads(out)
    assert code == 0 and kept["kind"] == "ComparisonResult" and kept["result"] == document


def test_results_are_saved_compared_exported_and_imported(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    here, there = ("--cache-dir", str(tmp_path / "here")), ("--cache-dir", str(tmp_path / "there"))
    for head, name in (("5.0", "one"), ("5.2", "other")):
        code, _, err = run(capsys, "ablate", "opt-mini", "--select", head, *SMALL, *here, "--save", name)
        assert code == 0 and f"saved as {name}" in err
    code, _, err = run(capsys, "ablate", "opt-mini", "--select", "5.0", *SMALL, *here, "--save", "one")
    assert code == 1 and "already a saved result named 'one'" in err
    code, out, _ = run(capsys, "saved", "list", *here, "--json")
    assert code == 0 and {row["name"] for row in json.loads(out)["saved"]} == {"one", "other"}
    code, out, _ = run(capsys, "saved", "compare", "one", "other", *here, "--json")
    (row,) = json.loads(out)["differences"]
    assert code == 0 and row["paired"] and row["difference"]["low"] <= row["difference"]["mean"]
    code, out, _ = run(capsys, "saved", "show", "one", "--table", "predictions", *here)
    assert code == 0 and "change of loss" in out
    file = tmp_path / "all.zip"
    assert run(capsys, "saved", "export", str(file), *here)[0] == 0
    code, _, err = run(capsys, "saved", "export", str(file), *here)
    assert code == 1 and "already; name another one" in err, "nothing is overwritten"
    code, out, _ = run(capsys, "saved", "import", str(file), *there)
    assert code == 0 and "imported: one" in out
    assert run(capsys, "saved", "delete", "one", *there)[0] == 0
    code, out, _ = run(capsys, "saved", "list", *there)
    assert code == 0 and "other" in out and ": one" not in out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("compare", "opt-mini", "--data", "python-docs"), "needs two data sets"),
        (("compare", "opt-mini", "--data", "a", "--data", "b", "--with", "random"), "name --data once"),
        (("compare", "opt-mini", "--data", "a", "--data", "b", "--method", "all"), "takes one method"),
        (("compare", "opt-mini", "--data", "python-docs", "--with", "no-such-model"), "no-such-model"),
        (("saved", "show", "nothing"), "no saved result named 'nothing'"),
        (("saved", "import", "no-such-file.zip"), "cannot be read"),
        (("saved", "export", "x.zip"), "nothing to export"),
    ],
)
def test_what_cannot_be_is_said(
    words: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    code, out, err = run(capsys, *words, "--cache-dir", str(tmp_path))
    assert code == 1 and sentence in err and not out


def test_a_head_on_a_task_is_judged_by_the_logit_difference(
    opt_mini: LoadedModel, capsys: pytest.CaptureFixture
) -> None:
    words = ("head", "opt-mini", "5.1", "--data", "task:induction", "--predictions", "8", "--method", "zero")
    code, said, _ = run(capsys, *words)
    data = load_data("task:induction", opt_mini, predictions=8)
    change = ablate(opt_mini, data, "5.1", "zero").results[0].change["logit_difference"]
    expected = f"{change.mean:+.3f} nats per prediction [{change.low:+.3f}, {change.high:+.3f}]"
    assert code == 0 and f"Logit difference without it (zero): {expected}" in said
