"""Downloads through the hub's own client, from a hub on loopback, in processes of their own: the client reads its address once."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from ablation_core import load_data, load_model
from ablation_core.bundled import FOLDER
from ablation_core.storage import PROJECT
from tests.loading.hub_server import Hub, serving

_SCRIPT = """
import json, sys
from ablation_core import AblationError, load_data, load_model
answers, model = [], load_model("opt-mini")
for action, *words in json.loads(sys.argv[1]):
    try:
        if action == "model":
            model = load_model(words[0])
            answers.append(model.fingerprint)
        else:
            answers.append(load_data(words[0], model, predictions=60, seq_len=16).fingerprint)
    except AblationError as error:
        answers.append("error: " + str(error))
print(json.dumps(answers))
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "hub"
    shutil.copytree(FOLDER / "opt-mini", folder / "models" / "tester" / "tiny")
    data = folder / "datasets" / "tester" / "notes"
    data.mkdir(parents=True)
    (data / "train.jsonl").write_text(
        "".join(json.dumps({"text": f"Note {n} of the training part. " * 9}) + "\n" for n in range(9))
    )
    (data / "test.jsonl").write_text(
        "".join(json.dumps({"text": f"Note {n} of the tested part. " * 9}) + "\n" for n in range(9))
    )
    return folder


def ask(hub: Hub, cache: Path, *actions: tuple[str, str], offline: bool = False) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(cache),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONPATH": str(PROJECT),
    }
    environment |= {"HF_HUB_OFFLINE": "1"} if offline else {}
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, json.dumps(actions)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=cache.parent,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_a_download_that_breaks_is_resumed_and_what_is_here_is_used_offline(root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    weights = root / "models" / "tester" / "tiny" / "model.safetensors"
    # as large as three of the pieces that the client writes, so that there is something to resume from
    save_file(load_file(weights), weights, {"format": "pt", "padding": "x" * 25_000_000})
    with serving(root) as hub:
        hub.broken.add("model.safetensors")
        first, older, data = ask(
            hub, cache, ("model", "tester/tiny"), ("model", "tester/tiny@older"), ("data", "hf:tester/notes")
        )
        model = load_model("opt-mini")
        assert first == older == model.fingerprint
        tested = [f"Note {n} of the tested part. " * 9 for n in range(9)]
        assert data == load_data(tested, model, predictions=60, seq_len=16).fingerprint
        ranges = [part for how, path, part in hub.asked if how == "GET" and path.endswith("model.safetensors")]
        assert ranges[0] == "" and ranges[1].startswith("bytes=10485760-")
        hub.asked.clear()
        again, missing, other = ask(
            hub,
            cache,
            ("model", "tester/tiny"),
            ("model", "tester/tiny@newer"),
            ("model", "tester/other"),
            offline=True,
        )
        assert again == first and not hub.asked
        assert "not its revision 'newer'" in missing and "main" in missing and "older" in missing
        assert "was not downloaded before" in other


@pytest.mark.slow
def test_what_a_hub_refuses_or_lacks_gets_a_sentence_each(root: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    shutil.copytree(root / "models" / "tester" / "tiny", root / "models" / "tester" / "secret")
    shutil.copytree(root / "models" / "tester" / "tiny", root / "models" / "tester" / "bare")
    (root / "models" / "tester" / "bare" / "model.safetensors").unlink()
    shutil.copytree(root / "models" / "tester" / "tiny", root / "models" / "tester" / "mute")
    for file in (root / "models" / "tester" / "mute").glob("tokenizer*"):
        file.unlink()
    with serving(root) as hub:
        hub.gated.add("tester/secret")
        gated, revision, nothing, bare, mute, data = ask(
            hub,
            cache,
            ("model", "tester/secret"),
            ("model", "tester/tiny@nowhere"),
            ("model", "tester/nothing"),
            ("model", "tester/bare"),
            ("model", "tester/mute"),
            ("data", "hf:tester/nothing"),
        )
    assert "is gated" in gated and "hf auth login" in gated
    assert "has no revision 'nowhere'" in revision
    assert "There is no model 'tester/nothing'" in nothing
    assert "holds no weights" in bare
    assert mute.startswith("error: ") and "tokenizer" in mute
    assert "There is no data set 'tester/nothing'" in data
