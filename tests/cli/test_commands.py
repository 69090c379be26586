"""The command line: its JSON documents, its exit codes, its sentences."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ablation_core.__main__ import main
from tests.conftest import ROOT, UNUSABLE_TEXT


def run(capsys: pytest.CaptureFixture, *arguments: str) -> tuple[int, str, str]:
    code = main(list(arguments))
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_ablate_prints_one_json_document(capsys: pytest.CaptureFixture, few_learned_from: None) -> None:
    code, out, _ = run(
        capsys, "ablate", "opt-mini", "--select", "3.2", "--method", "all", "--predictions", "700", "--json"
    )
    document = json.loads(out)
    assert code == 0
    assert set(document["model"]) >= {"ref", "family", "modality", "layers", "heads", "head_dim", "fingerprint"}
    assert document["data"]["predictions"] == 700
    assert set(document["statistics"]) >= {"data", "tokens", "bins", "digest"}
    assert (document["select"], document["neurons"]) == ("3.2", 32)
    assert set(document["baseline"]) == {"loss", "perplexity", "top1", "top10"}
    for row in document["results"]:
        assert set(row) == {"method", "loss", "perplexity", "top1", "top10", "kl", "change", "displacement"}
        change = row["change"]["loss"]
        assert change["mean"] == pytest.approx(row["loss"] - document["baseline"]["loss"], abs=1e-9)
        assert change["low"] <= change["mean"] <= change["high"]
    measured = [row["method"] for row in document["results"]]
    assert measured[:4] == ["zero", "mean", "median", "peak"]
    assert {"peak-whole-range", "resample-dataset", "resample-generated"} < set(measured)
    assert "optimal" not in measured  # it is learned, and asked for by name


def test_statistics_are_kept_and_found_again(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    cache = ("--cache-dir", str(tmp_path))
    code, out, _ = run(capsys, "stats", "vit-mini", "--predictions", "20", *cache, "--json")
    document = json.loads(out)
    assert code == 0 and Path(document["path"]).is_relative_to(tmp_path)
    assert document["statistics"]["tokens"] == 20 * 49  # 49 patches; CLS is left out
    code, out, _ = run(capsys, "ablate", "vit-mini", "--select", "0.0", "--predictions", "20", *cache, "--json")
    assert json.loads(out)["statistics"]["digest"] == document["statistics"]["digest"]


def test_models_lists_the_bundled_ones(capsys: pytest.CaptureFixture) -> None:
    code, out, _ = run(capsys, "models", "--json")
    assert code == 0
    assert {model["ref"] for model in json.loads(out)["models"]} >= {"opt-mini", "roberta-mini", "vit-mini"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("ablate", "opt-mni", "--select", "1.1"), "no model 'opt-mni'"),
        (("ablate", "opt-mini", "--select", "1.99"), "There is no head 99"),
        (("ablate", "opt-mini", "--select", "one"), "Cannot read 'one'"),
        (("ablate", "opt-mini", "--select", "1.1", "--method", "best"), "no method 'best'"),
        (
            ("ablate", "opt-mini", "--select", "1.1", "--data", f"text:{ROOT / 'README.md'}"),
            "needs activation statistics",
        ),
        (("ablate", "opt-mini", "--select", "1.1", "--bins", "0"), "between 1 and"),
        (("ablate", "opt-mini", "--select", "1.1", "--data", "text:/nowhere"), "no file"),
        (("ablate", "opt-mini", "--select", "1.1", "--device", "gpu9"), "device 'gpu9'"),
        (("ablate", "opt-mini", "--select", "1.1", "--dtype", "int4"), "no dtype 'int4'"),
        (("ablate", "vit-mini", "--select", "1.1", "--data", "python-docs"), "reads images"),
        (("stats", "opt-mini", "--predictions", "0"), "at least 1"),
        (("stats", "opt-mini", "--bins", "0"), "between 1 and"),
    ],
)
def test_bad_requests_end_with_one_sentence(
    capsys: pytest.CaptureFixture, arguments: tuple[str, ...], words: str
) -> None:
    code, out, err = run(capsys, *arguments)
    sentence = err.strip().splitlines()[-1]
    assert (code, out) == (1, "")
    assert sentence.startswith("error: ") and words in sentence
    assert "Traceback" not in err


@pytest.mark.parametrize(("content", "words"), UNUSABLE_TEXT)
def test_unusable_files_end_with_one_sentence(
    capsys: pytest.CaptureFixture, tmp_path: Path, content: bytes, words: str
) -> None:
    (tmp_path / "file.txt").write_bytes(content)
    code, out, err = run(capsys, "stats", "opt-mini", "--data", f"text:{tmp_path / 'file.txt'}")
    assert (code, out) == (1, "") and words in err
    code, out, err = run(capsys, "ablate", "vit-mini", "--select", "0.0", "--data", f"images:{tmp_path}")
    assert (code, out) == (1, "") and "no image" in err


def test_wrong_usage_exits_with_2() -> None:
    for arguments in ((), ("ablate", "opt-mini"), ("fly",), ("stats", "opt-mini", "--bins", "many")):
        with pytest.raises(SystemExit) as raised:
            main(list(arguments))
        assert raised.value.code == 2


@pytest.mark.slow
def test_as_a_program_messages_go_to_standard_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ablation_core", "ablate", "opt-mini", "--select", "1.1", "--predictions", "50"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["data"]["predictions"] == 50
    assert "Loading weights" not in done.stderr
