"""What comes with the project is found from any cache folder, and stays as it is."""

import shutil
from pathlib import Path

import pytest

from ablation_core import bundled, storage
from ablation_core.activations import files
from ablation_core.errors import StatisticsError
from ablation_core.models.info import ModelInfo
from ablation_core.runs import ledger
from ablation_core.selection import ModelShape
from ablation_core.server import inventory
from ablation_core.storage import PUBLISHED
from ablation_core.ui.glance.known import known_effects

CARD = bundled.CARDS["opt-mini"]
SMOLLM2 = "d492b8787c844cdc"  # the fingerprint of the fetched weights


def test_another_folder_finds_bundled_statistics_behind_its_own(tmp_path: Path) -> None:
    found = files.find_statistics(CARD, "python-docs", tmp_path)
    assert found is not None and found.path.is_relative_to(PUBLISHED)
    own = tmp_path / "opt-mini" / "own.safetensors"
    own.parent.mkdir()
    shutil.copy(found.path, own)
    found = files.find_statistics(CARD, "python-docs", tmp_path)
    assert found is not None and found.path == own
    assert files.find_statistics(CARD, "text:nothing", tmp_path) is None


@pytest.fixture
def of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The usual cache folder of an installed package: another one than that of what comes with the project."""
    monkeypatch.setattr(storage, "CACHE", tmp_path)
    return tmp_path


def test_the_usual_folder_lists_what_is_published(of_the_user: Path) -> None:
    names = [entry.path.relative_to(PUBLISHED).as_posix() for entry in files.list_statistics(of_the_user)[0]]
    assert names == sorted(bundled.STATISTICS)
    own = of_the_user / bundled.STATISTICS[0]
    own.parent.mkdir(parents=True)
    shutil.copy(PUBLISHED / bundled.STATISTICS[0], own)
    paths = [entry.path for entry in files.list_statistics(of_the_user)[0]]
    assert own in paths and PUBLISHED / bundled.STATISTICS[0] not in paths and len(paths) == len(names)
    assert files.list_statistics(of_the_user / "another") == ([], [])
    bundled_one = PUBLISHED / bundled.STATISTICS[1]
    with pytest.raises(StatisticsError, match="cannot be deleted"):
        inventory.delete_statistics(bundled_one, of_the_user)
    inventory.delete_statistics(own, of_the_user)
    assert bundled_one.exists() and not own.exists()


def test_published_runs_are_found_and_gone_on_with_in_a_copy(of_the_user: Path) -> None:
    published = ledger.find_runs(of_the_user, "sweep", CARD.fingerprint)
    assert published and all(run.path.is_relative_to(PUBLISHED) for run in published)
    run = published[0]
    before = run.path.read_bytes()
    with ledger.open_ledger(of_the_user, "sweep", run.run) as own:
        assert own.done == run.done and own.path.is_relative_to(of_the_user)
        own.add("one more", {"piece": "one more"})
    assert run.path.read_bytes() == before and own.path.stat().st_size > len(before)
    again = {kept.path.name: kept.path for kept in ledger.find_runs(of_the_user, "sweep", CARD.fingerprint)}
    assert again[run.path.name] == own.path and len(again) == len(published)


def test_a_model_that_is_fetched_has_its_statistics_and_a_whole_sweep_already(tmp_path: Path) -> None:
    info = ModelInfo("smollm2-135m", "llama", "causal", ModelShape((9,) * 30, 64), SMOLLM2)
    entry = files.find_statistics(info, "python-docs", tmp_path)
    assert entry is not None
    statistics = files.load_statistics(entry.path, info)  # checks the digest and the shape
    assert statistics.provenance["tokens"] >= 10_000
    known = known_effects(info, "python-docs")
    assert (
        known is not None and len(known.sweep.heads) == 30 * 9 and {"zero", "mean", "peak"} <= set(known.sweep.methods)
    )
    assert known.sweep.description["statistics"]["digest"] == statistics.digest
    first = "{}.{}".format(
        *known.strongest_head or ()
    )  # what the page opens on is not the largest of 270 chance changes
    assert all(first in known.sweep.significant(method, "loss") for method in known.sweep.methods)
    compared = {
        run.run["data"]["ref"] for run in ledger.find_runs(storage.CACHE, "changes", SMOLLM2) if len(run.done) == 270
    }
    assert compared == {"python-docs", "python-code"}
