"""The means by position and the written texts that come with the project: `python -m docs.published_replacements`.

They are those that `mean-positional` and `resample-generated` take with the usual settings, so that a first look needs no
pass over a statistics part and no text to be written. Written to `cached_stats/published-replacements/`.
"""

from collections.abc import Iterator

from torch import Tensor

from ablation_core import load_data, load_model
from ablation_core.methods.kept import KeptFile, file_bytes
from ablation_core.methods.optimal import training_data
from ablation_core.methods.positional import kept_means, measured_means
from ablation_core.methods.resampling import kept_text, written_tokens
from ablation_core.storage import write_atomic

MEANS = (
    ("opt-mini", "python-docs"),
    ("opt-mini", "task:induction"),
    ("roberta-mini", "python-docs"),
    ("vit-mini", "fashion-mnist"),
)
TEXTS = ("opt-mini", "roberta-mini")
SEED = 0


def published() -> Iterator[tuple[KeptFile, dict[str, Tensor]]]:
    """Each file and what it holds."""
    for name, ref in MEANS:
        model = load_model(name)
        data = load_data(ref, model)
        part = training_data(model, data)
        yield kept_means(model, part, data), measured_means(model, part, data)
    for name in TEXTS:
        model = load_model(name)
        data = load_data("python-docs", model)
        yield kept_text(model, data, SEED), {"tokens": written_tokens(model, data, SEED)}


def main() -> None:
    for file, tensors in published():
        write_atomic(file.published, file_bytes(tensors))
        print(file.name, f"{file.published.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
