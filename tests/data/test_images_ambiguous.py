"""Two classes of one name: said, and never merged."""

from pathlib import Path

import pytest
from PIL import Image

from ablation_core.data.images import find_images
from ablation_core.errors import DataError

LABELS = ("crane", "heron", "Crane", "T-shirt/top")


def pictures(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).mkdir()
        for number in range(2):
            Image.new("L", (4, 4), number).save(folder / name / f"{number}.png")
    return f"images:{folder}"


def test_a_name_of_two_classes_is_left_out_and_said_and_a_number_is_clear(tmp_path: Path) -> None:
    items, notes = find_images(pictures(tmp_path, "crane", "heron", "2", "T-shirt_top"), "evaluation", LABELS)
    assert sorted(item.target for item in items) == [1, 2, 3]
    assert len(notes) == 1 and "crane (0 or 2)" in notes[0]


def test_nothing_but_a_name_of_two_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Several classes of the model have one name: crane \(0 or 2\)"):
        find_images(pictures(tmp_path, "crane"), "evaluation", LABELS)
