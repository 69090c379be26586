"""The means by position that come with the project: `python -m docs.published_means`.

They are those that `mean-positional` puts in a neuron's place with the usual settings, so that a first look at a bundled
model needs no pass over its statistics part. Written to `cached_stats/published-positions/`, float32 by layer.
"""

from ablation_core import load_data, load_model
from ablation_core.methods.kept_means import MeansFile, means_bytes
from ablation_core.methods.optimal import training_data
from ablation_core.methods.positional import measured_means, positions_of
from ablation_core.storage import PUBLISHED, write_atomic

USUAL = (
    ("opt-mini", "python-docs"),
    ("opt-mini", "task:induction"),
    ("roberta-mini", "python-docs"),
    ("vit-mini", "fashion-mnist"),
)


def main() -> None:
    for name, ref in USUAL:
        model = load_model(name)
        data = load_data(ref, model)
        part, length = training_data(model, data), positions_of(data)
        path = PUBLISHED / "published-positions" / MeansFile.of(model, part, length).name
        write_atomic(path, means_bytes(measured_means(model, part, length)))
        print(name, ref, path.name, f"{path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
