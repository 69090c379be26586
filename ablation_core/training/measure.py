"""The held-out figures of a bundled model: `python -m ablation_core.training.measure opt-mini`.

Prints them as JSON beside what counting alone reaches on the same predictions. `--card` writes the model's card.
The n-gram models count the same tokens that the language models were trained on, which are collected into `--work`
where they are not there yet.
"""

import argparse
import json
import pydoc_data.topics
from pathlib import Path

import numpy as np

from ablation_core import bundled
from ablation_core.data.dataset import IGNORED, Data
from ablation_core.data.load import load_data
from ablation_core.experiments.ablation import ablate
from ablation_core.loading.load import load_model
from ablation_core.models.loaded import LoadedModel
from ablation_core.training.ngrams import Neighbours, Trigram
from ablation_core.training.recipes import VOCAB_SIZE, text_tokens

EVERYTHING = 10**9


def measure(name: str, work: Path) -> dict:
    """The held-out figures: each part of `python-docs` or the whole test set of Fashion-MNIST."""
    model = load_model(name)
    ref = "fashion-mnist:full" if model.modality == "vision" else "python-docs"
    data = load_data(ref, model, predictions=EVERYTHING)
    baseline = ablate(model, data, "", method="zero").baseline
    figures = {"data": ref, "predictions": data.predictions, "loss": baseline.loss, "top1": baseline["top1"]}
    if model.modality == "vision":
        return figures
    tokens = np.array(text_tokens(work, "\n".join(pydoc_data.topics.topics.values())))
    figures["training_tokens"] = len(tokens)
    compare = _compare_trigram if model.modality == "causal" else _compare_neighbours
    return figures | compare(model, data, tokens)


def _compare_trigram(model: LoadedModel, data: Data, tokens: np.ndarray) -> dict:
    trigram = Trigram.trained(tokens, VOCAB_SIZE)
    start = model.tokenizer.bos_token_id
    grams = []
    for batch in data:
        for ids, targets in zip(batch.inputs["input_ids"].numpy(), batch.targets.numpy(), strict=True):
            padded = np.append(start, ids)  # the first prediction knows one token only
            for position in np.flatnonzero(targets != IGNORED):
                grams.append((padded[position], padded[position + 1], targets[position]))
    return {"trigram_loss": float(trigram.loss(np.array(grams)).mean())}


def _compare_neighbours(model: LoadedModel, data: Data, tokens: np.ndarray) -> dict:
    neighbours = Neighbours.trained(tokens, VOCAB_SIZE)
    left, right, wanted = [], [], []
    for batch in data:
        ids, targets = batch.inputs["input_ids"].numpy(), batch.targets.numpy()
        ids = np.where(targets == IGNORED, ids, targets)  # the true neighbours: the model sees some of them masked
        rows, places = np.nonzero(targets != IGNORED)
        left.append(ids[rows, places - 1])
        right.append(ids[rows, places + 1])
        wanted.append(targets[rows, places])
    guesses = neighbours.guess(np.concatenate(left), np.concatenate(right))
    return {"neighbours_top1": float((guesses == np.concatenate(wanted)).mean())}


CARD = """# {name}

{description}.

| | |
|---|---|
| training | `python -m ablation_core.training.train {name} --steps {run[steps]}`: {run[steps]:,} steps, seed {run[seed]}, {run[minutes]:.0f} minutes on one busy processor core, torch {run[torch]} |
| data | {data} |
| held out | {held} |
| figures measured by | `python -m ablation_core.training.measure {name}` |
| licence of the weights | MIT, as the project |

{limits}
"""
TEXT = (
    "{tokens:,} tokens of docstrings and package descriptions, found in the standard library of Python {text[python]} "
    "and in the {text[packages]} packages installed by `requirements.txt` ({text[documents]:,} documents; their licences "
    "are those of their packages). Documents that share ten consecutive words with `python-docs` are left out."
)
WORDS = {
    "opt-mini": "{predictions:,} next tokens of `python-docs`: {loss:.3f} nats per token, top-1 {top1:.1%}; an interpolated "
    "trigram model of the same training tokens: {trigram_loss:.3f} nats, {gap:.3f} more",
    "roberta-mini": "{predictions:,} chosen tokens (15%) of `python-docs`: top-1 {top1:.1%}, {loss:.3f} nats; the best "
    "guess from the counts of the two neighbouring tokens: {neighbours_top1:.1%}",
    "vit-mini": "{predictions:,} test images of Fashion-MNIST: top-1 {top1:.2%}, {loss:.3f} nats",
}


def write_card(name: str, figures: dict, work: Path) -> None:
    """Write the model's README from its training run and its figures."""
    folder = bundled.FOLDER / name
    run = json.loads((folder / "training.json").read_text())
    if name == "vit-mini":
        data = "the 60,000 training images of Fashion-MNIST (MIT licence), shifted by up to 2 pixels and mirrored"
        limits = "It only knows ten kinds of clothes, in grey, 28 × 28 pixels."
    else:
        text = json.loads((work / "text.json").read_text())
        data = TEXT.format(tokens=figures["training_tokens"], text=text)
        limits = "It has only read documentation of Python code: an object to study, not a source of facts."
    gap = figures.get("trigram_loss", 0) - figures["loss"]
    card = CARD.format(
        name=name,
        description=bundled.describe(name)[0].upper() + bundled.describe(name)[1:],
        run=run,
        data=data,
        held=WORDS[name].format(gap=gap, **figures),
        limits=limits,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ablation_core.training.measure", description=__doc__)
    parser.add_argument("name", choices=bundled.NAMES)
    parser.add_argument("--work", type=Path, default=Path(".training"), help="folder of the training tokens")
    parser.add_argument("--card", action="store_true", help="write the figures into the model's card")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    figures = measure(arguments.name, arguments.work)
    print(json.dumps(figures, indent=2))
    if arguments.card:
        write_card(arguments.name, figures, arguments.work)


if __name__ == "__main__":
    main()
