"""The answers that the app's first page shows before its model is loaded: `python -m docs.first_answers`.

Measures, for each bundled model on its usual data, the first example input before and after every head by the usual
methods, and keeps them in `cached_stats/runs/answers-….jsonl`, to be published with the project. What is kept already is
not measured again: remove the file first where the numbers are to change.
"""

from collections.abc import Iterator

from ablation_core import bundled, find_statistics, load_data, load_model, load_statistics
from ablation_core.activations.statistics import Statistics
from ablation_core.data import user_input
from ablation_core.data.dataset import Data
from ablation_core.data.references import DEFAULT_DATA
from ablation_core.experiments.spec import AblationSpec
from ablation_core.experiments.user_input import UserInputRun
from ablation_core.methods.registry import METHODS, USUAL, usable_methods
from ablation_core.models.info import predicts_class
from ablation_core.models.loaded import LoadedModel
from ablation_core.report.token_html import as_png, as_seen
from ablation_core.runs.ledger import open_ledger
from ablation_core.runs.sweep_result import every_head, head_name
from ablation_core.runs.units import describe_work
from ablation_core.selection import Head, Selection
from ablation_core.server import answers
from ablation_core.storage import PUBLISHED
from ablation_core.ui.glance.examples import PROMPTS
from ablation_core.ui.glance.inputs import barely_right, first_rows, right_shares
from ablation_core.ui.shared import SEED

BINS = 100  # the first page's


def measured(model: LoadedModel, own: user_input.UserInput, head: Head, statistics: Statistics) -> answers.TopAnswers:
    """The input before and after a head, by the usual methods."""
    methods = tuple(METHODS[name] for name in usable_methods(own.data, model.modality) if name in USUAL)
    spec = AblationSpec(Selection.of_heads([head], model.shape), methods, BINS, SEED)
    return answers.TopAnswers.of(model, UserInputRun(model, own, spec, statistics).answer())


def example_images(model: LoadedModel, data: Data) -> Iterator[answers.ExampleImage]:
    """The images that the first page offers."""
    for number, name in barely_right(model, data, right_shares(model, first_rows(data))).items():
        (pixels,) = data.rows([number]).inputs.values()
        yield answers.ExampleImage(number, name, as_png(as_seen(model, pixels.float().numpy())[0]))


def publish(name: str) -> None:
    model, ref = load_model(name), DEFAULT_DATA[bundled.CARDS[name].modality]
    entry = find_statistics(model, ref)
    assert entry is not None
    statistics = load_statistics(entry.path, model)
    data = load_data(ref, model, 1000 if predicts_class(model.modality) else 2000, seed=SEED)
    with open_ledger(PUBLISHED, answers.KIND, describe_work(model, data, statistics, BINS)) as ledger:
        if model.modality == "vision":
            images = list(example_images(model, data))
            ledger.add(answers.IMAGES, answers.images_record(images))
            asked = answers.image_input(images[0].number)
            own = user_input.image(model, images[0].png, ref)
        else:
            asked = PROMPTS[model.modality][0]
            own = user_input.prompt(model, asked, ref)
        for head in every_head(model):
            unit = f"{head_name(head)}: {asked}"
            if unit not in ledger.done:
                found = measured(model, own, head, statistics)
                ledger.add(unit, answers.answer_record(head_name(head), asked, found))
    print(ledger.path)


if __name__ == "__main__":
    for one in bundled.NAMES:
        publish(one)
