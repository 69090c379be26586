"""Where the project keeps what it makes or fetches: one cache folder, and nothing is written outside it."""

import os
from pathlib import Path

CACHE = Path(os.environ.get("ABLATION_CACHE") or Path(__file__).parent.parent / "cached_stats")


def models_folder(cache: Path = CACHE) -> Path:
    """The folder of fetched models inside a cache folder."""
    return cache / "models"


def uploads_folder(cache: Path = CACHE) -> Path:
    """The folder of what people uploaded inside a cache folder."""
    return cache / "uploads"
