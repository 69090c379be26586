"""What is here, and statistics taken in and out of the cache folder."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from ablation_core import bundled
from ablation_core.activations import files
from ablation_core.errors import StatisticsError
from ablation_core.server import inventory
from ablation_core.server.inventory import delete_statistics, import_statistics, is_bundled, list_data
from ablation_core.server.models_here import list_models
from ablation_core.storage import CACHE
from tests.conftest import ROOT

OURS = CACHE / bundled.STATISTICS[0]


def test_the_bundled_statistics_are_those_under_version_control() -> None:
    listed = subprocess.run(["git", "ls-files", "cached_stats"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode or not listed.stdout:
        pytest.skip("not a git checkout")
    names = {name.removeprefix("cached_stats/") for name in listed.stdout.split()}
    arrays = {name for name in names if name.endswith(".safetensors")}
    assert {name for name in arrays if not name.startswith("published-replacements/")} == set(bundled.STATISTICS)


def test_models_and_data_are_listed_with_their_origin(tmp_path: Path) -> None:
    models = {item.ref: item for item in list_models(tmp_path)}
    assert [models[name].origin for name in bundled.NAMES] == ["bundled"] * 3
    assert models["opt-mini"].bytes > 1_000_000
    assert models["smollm2-135m"].origin.startswith("to fetch") and models["smollm2-135m"].bytes is None
    assert {"python-docs", "python-code", "fashion-mnist"} <= {item.ref for item in list_data(tmp_path)}


def test_statistics_travel_and_come_back_the_same(tmp_path: Path) -> None:
    path = import_statistics(OURS.read_bytes(), tmp_path)
    assert path == tmp_path / bundled.STATISTICS[0]
    assert files.load_statistics(path).digest == files.load_statistics(OURS).digest
    assert import_statistics(OURS.read_bytes(), tmp_path) == path, "a second time changes nothing"
    delete_statistics(path, tmp_path)
    assert files.list_statistics(tmp_path) == ([], [])


def test_other_numbers_under_the_same_provenance_are_not_imported_over_them(tmp_path: Path) -> None:
    statistics = files.load_statistics(OURS)
    forged = type(statistics)(**{name: getattr(statistics, name) for name in statistics.__dataclass_fields__})
    forged.mean[0, 0, 0] += 1
    content = files.save_statistics(forged, tmp_path / "elsewhere").read_bytes()
    kept = import_statistics(OURS.read_bytes(), tmp_path)
    with pytest.raises(StatisticsError, match="already has different statistics"):
        import_statistics(content, tmp_path)
    assert files.load_statistics(kept).mean[0, 0, 0] != forged.mean[0, 0, 0]


@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95 a pickle", b"{}", OURS.read_bytes()[:-100]], ids=range(4))
def test_a_file_that_is_none_of_ours_gets_a_sentence(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(StatisticsError, match=r"damaged|not a statistics file") as caught:
        import_statistics(content, tmp_path)
    assert "/" not in str(caught.value).split("(")[0], "no path of this machine"
    assert not list(tmp_path.iterdir())


def test_other_safetensors_and_changed_numbers_are_refused(tmp_path: Path) -> None:
    save_file({"weight": np.zeros(3, np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(StatisticsError, match="no provenance"):
        import_statistics((tmp_path / "model.safetensors").read_bytes(), tmp_path)
    changed = bytearray(OURS.read_bytes())
    changed[-10] ^= 1
    with pytest.raises(StatisticsError, match="digest"):
        import_statistics(bytes(changed), tmp_path)
    with pytest.raises(StatisticsError, match="larger than 50 MB"):
        import_statistics(b"\0" * (inventory.MAX_STATISTICS_BYTES + 1), tmp_path)


def test_only_statistics_of_the_folder_are_deleted(tmp_path: Path) -> None:
    outside = tmp_path / "outside" / "file.safetensors"
    outside.parent.mkdir()
    shutil.copy(OURS, outside)
    folder = tmp_path / "cache"
    (folder / "opt-mini").mkdir(parents=True)
    (folder / "opt-mini" / "link.safetensors").symlink_to(outside)
    for path in (outside, folder / "opt-mini" / ".." / ".." / "outside" / "file.safetensors", folder / "opt-mini" / "link.safetensors"):  # fmt: skip
        with pytest.raises(StatisticsError, match="nothing was deleted"):
            delete_statistics(path, folder)
    assert outside.exists()


def test_bundled_statistics_stay() -> None:
    entry = next(entry for entry in files.list_statistics()[0] if entry.path == OURS)
    assert is_bundled(entry)
    with pytest.raises(StatisticsError, match="cannot be deleted"):
        delete_statistics(OURS)
    assert OURS.exists()
