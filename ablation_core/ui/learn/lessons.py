"""The content of the Learn page: real neurons of each kind, guided experiments with their answers, references.

The answers' numbers are those of the bundled model on 2,000 predictions of `python-docs` with seed 0, which a test
reproduces; those of a task are read from its published sweep.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from ablation_core import bundled
from ablation_core.report.numbers import number, span_text
from ablation_core.runs.sweep_result import SweepResult, kept_sweeps
from ablation_core.storage import CACHE

FORM = "+.4f"
MODEL, DATA, PREDICTIONS = "opt-mini", "python-docs", 2000


@dataclass(frozen=True)
class Example:
    """A real neuron of the bundled language model and what it shows."""

    neuron: tuple[int, int, int]
    words: str

    @property
    def name(self) -> str:
        layer, head, number = self.neuron
        return f"{layer}.{head}:{number}"


KINDS = ("An ordinary one", "Far from zero", "Leaning", "Two humps")
_WORDS = (
    "A bell around zero: all candidates agree. Most neurons look nearly like this.",
    "It never comes near zero. Setting it to zero gives the model something it has never seen.",
    "A tail on one side pulls the mean away from the neuron's usual values.",
    "It has two habits. The mean is between them, at a value it seldom takes.",
)
_NEURONS = {
    "opt-mini": ((2, 4, 11), (0, 3, 1), (1, 3, 29), (2, 3, 5)),
    "roberta-mini": ((0, 5, 25), (0, 2, 16), (5, 1, 2), (0, 5, 3)),
    "vit-mini": ((4, 5, 12), (3, 2, 11), (1, 2, 6), (1, 2, 14)),
}
# model → kind → a neuron of that kind
EXAMPLES = {
    model: {kind: Example(neuron, words) for kind, neuron, words in zip(KINDS, neurons, _WORDS, strict=True)}
    for model, neurons in _NEURONS.items()
}
EXAMPLES["vit-mini"][KINDS[1]] = Example(
    (3, 2, 11), "It seldom comes near zero: no neuron of this model is farther from it."
)
MODELS = {
    "opt-mini": "continues a text",
    "roberta-mini": "fills gaps in a text",
    "vit-mini": "recognises what an image shows",
}
DATA_OF = {model: "fashion-mnist" if model == "vit-mini" else DATA for model in MODELS}


@dataclass(frozen=True)
class Link:
    """A page that an experiment opens, with everything set.

    Attributes:
        more: parameters of that page's own.
    """

    select: str
    method: str
    page: str = "pages/ablate.py"
    more: Mapping[str, str] = field(default_factory=dict)

    @property
    def params(self) -> dict[str, str]:
        return query(self.select, self.method) | dict(self.more)


@dataclass(frozen=True)
class Experiment:
    """A guided experiment.

    Attributes:
        task: what to do and to look at.
        links: label → the page that it opens.
        figures: (selection, method) → change of loss in nats: mean, low, high.
        scores: (score, head) → a head's score on random tokens written twice.
        answer: a text with a `{name}` for each figure, see `answer_text`.
    """

    title: str
    task: str
    links: dict[str, Link]
    question: str
    figures: dict[tuple[str, str], tuple[float, float, float]]
    answer: str
    scores: dict[tuple[str, str], float] = field(default_factory=dict)

    @property
    def answer_text(self) -> str:
        """The answer with its figures: `{3.0 zero}` stands for one of them, `{induction of 5.1}` for a score, and
        `{induction: 5.1 mean}` for the change of the logit difference of a task in its published sweep."""
        text = self.answer
        for (select, method), (mean, low, high) in self.figures.items():
            text = text.replace(f"{{{select} {method}}}", f"{number(mean, FORM)} nats ({span_text(low, high, FORM)})")
        for (score, head), value in self.scores.items():
            text = text.replace(f"{{{score} of {head}}}", number(value, ".2f"))
        return re.sub(r"\{(\S+): (\S+) (\S+)\}", lambda found: task_figure(*found.groups()), text)


@cache
def published_task(task: str) -> SweepResult | None:
    """The sweep of a task on the bundled language model that comes with the project; None where it has been deleted."""
    sweeps = kept_sweeps(bundled.CARDS[MODEL], CACHE).values()
    return next((one for one in sweeps if one.description["data"]["ref"] == f"task:{task}"), None)


def task_figure(task: str, head: str, method: str) -> str:
    """The change of the task's logit difference without a head; `baseline` as head stands for that of the whole model."""
    sweep = published_task(task)
    if sweep is None:
        return "(not measured here)"
    if head == "baseline":
        return f"{number((sweep.baseline or {}).get(method), '+.2f')} nats"
    change = sweep.rows[head][method]["change"]["logit_difference"]
    return f"{number(change['mean'], '+.2f')} nats ({span_text(change['low'], change['high'], '+.2f')})"


def query(select: str, method: str, model: str = MODEL) -> dict[str, str]:
    """The address' parameters that open an experiment with everything set."""
    return {
        "model": model,
        "images" if model == "vit-mini" else "text": DATA_OF[model],
        "predictions": str(PREDICTIONS),
        "select": select,
        "method": method,
        "bins": "100",
        "metric": "loss",
    }


_TASK = {"task": "task:induction", "prompts": "100", "task_metric": "logit_difference"}

EXPERIMENTS = (
    Experiment(
        title="Is zero neutral?",
        task="Open head 3.0 and compare two rows of the chart: *zero* and *mean*. Look where each interval is, relative to "
        "the line at 0.",
        links={"Ablate head 3.0": Link("3.0", "zero")},
        question="Judged by zero alone, does the model need this head? And judged by the mean?",
        figures={
            ("3.0", "zero"): (0.0245, 0.0091, 0.0380),
            ("3.0", "mean"): (0.0056, -0.0029, 0.0133),
            ("3.0", "peak"): (0.0048, -0.0034, 0.0123),
        },
        answer="Zeros change the loss by {3.0 zero}: the interval excludes 0, so one would say that the head is needed. "
        "Means change it by {3.0 mean} and peaks by {3.0 peak}: neither is significant. All three remove the same "
        "information. So the extra loss with zero is not missing information: later layers receive an input that they do "
        "not expect. Zero is a choice, and not a neutral one.",
    ),
    Experiment(
        title="A head that matters, or just any neurons?",
        task="Open head 2.3, then head 4.2. For each, compare the marks with the grey bands: they show the effect of as "
        "many random neurons of the same layer.",
        links={"Ablate head 2.3": Link("2.3", "mean"), "Ablate head 4.2": Link("4.2", "mean")},
        question="Which of the two heads would you call important, and why is one number not enough?",
        figures={
            ("2.3", "mean"): (0.0929, 0.0691, 0.1160),
            ("4.2", "mean"): (-0.0003, -0.0055, 0.0038),
        },
        answer="Head 2.3: {2.3 mean}, with its whole interval above the band of random neurons (+0.0125 to +0.0207). So "
        "it matters more than each of the random sets of as many neurons of its layer that were tried. Head 4.2: {4.2 mean}: "
        "the interval includes 0, "
        "so the change is not significant. That does not prove that the head does nothing: it may matter for text that "
        "is not in the sample, or another head may take over when it is gone. A number needs its interval, and something "
        "to compare it with.",
    ),
    Experiment(
        title="What does a replacement keep?",
        task="Open head 0.4 and look at the lowest row: *resample-dataset* uses the values that the head has on another "
        "text, position by position. The paper found that resampling usually raises the loss most.",
        links={"Ablate head 0.4": Link("0.4", "resample-dataset")},
        question="Here it raises the loss least, by far. What could these neurons carry?",
        figures={
            ("0.4", "zero"): (0.1115, 0.0952, 0.1288),
            ("0.4", "mean"): (0.0766, 0.0625, 0.0910),
            ("0.4", "resample-dataset"): (0.0022, -0.0018, 0.0058),
        },
        answer="Position. Another text has other words but the same positions, and resampling changes the loss by only "
        "{0.4 resample-dataset}, while one constant for all positions changes it by {0.4 mean} (mean) or {0.4 zero} "
        "(zero). Indeed, 90% of this head's variance depends on the position alone. Every replacement preserves "
        "something: a constant preserves the average, resampling preserves what all texts share. Which one is right "
        "depends on your question.",
    ),
    Experiment(
        title="Can you find an induction head?",
        task="An **induction head** continues what has been seen before: after *A B … A* it expects *B*. On the map coloured "
        "by *induction*, find the head that looks at the token behind the earlier copy. Predict what its removal does to "
        "a task that needs just this: random tokens, and their beginning again. Then open that task, and look at head 5.1 "
        "and at head 3.3.",
        links={
            "Head map, coloured by induction": Link("5.1", "mean", "pages/head_map.py", {"colour": "induction"}),
            "Task without head 5.1": Link("5.1", "mean", "pages/tasks.py", _TASK | {"head": "5.1"}),
            "Task without head 3.3": Link("3.3", "mean", "pages/tasks.py", _TASK | {"head": "3.3"}),
        },
        question="Head 3.3 has an induction score of 0. Why does the task need it as much as the induction head? And why do "
        "the two differ so much by *counterfactual*, which swaps the right and the wrong token in the first copy?",
        figures={("5.1", "mean"): (0.0396, 0.0118, 0.0716)},
        scores={("induction", "5.1"): 0.536, ("induction", "3.3"): 0.0, ("previous_token", "3.3"): 0.793},
        answer="Head 5.1 gives {induction of 5.1} of its attention to the token behind the first copy, more than any other "
        "head. The task's logit difference is {induction: baseline logit_difference}; without 5.1 it changes by "
        "{induction: 5.1 mean}. On ordinary text its loss changes by only {5.1 mean}: few words there are repetitions.  \n"
        "Head 3.3 changes it by {induction: 3.3 mean}, though its induction score is {induction of 3.3}. Colour the map by "
        "*previous token*: 3.3 is the highest, with {previous_token of 3.3}. It notes at each position which token came "
        "before, and 5.1 searches these notes. (Without 3.3, the induction score of 5.1 falls from 0.54 to 0.21.) By "
        "*counterfactual* 3.3 changes the difference by {induction: 3.3 counterfactual} and 5.1 by "
        "{induction: 5.1 counterfactual}: 3.3 says where to look, 5.1 what stands there. A score says what a head does; "
        "only an ablation says what it is needed for.",
    ),
)


@dataclass(frozen=True)
class Reference:
    """A publication: who, when, what, where, and why it is named here."""

    text: str
    link: str
    why: str


REFERENCES = (
    Reference(
        "N. Pochinkov, B. Pasero, S. Shibayama (2024): Investigating Neuron Ablation in Attention Heads: The Case for "
        "Peak Activation Centering. arXiv 2408.17322",
        "https://arxiv.org/abs/2408.17322",
        "Asks which replacement does the least damage; compares zero, mean, resampling and, newly, the peak on Mistral-7B, "
        "OPT-1.3B, RoBERTa-large and a vision transformer. Each can be best in some regime; resampling usually does the "
        "most damage.",
    ),
    Reference(
        "M. Li, L. Janson (2024): Optimal ablation for interpretability. NeurIPS 2024, arXiv 2409.09951",
        "https://arxiv.org/abs/2409.09951",
        "Learns the constant that leaves the ablated model's expected loss lowest, and argues that this measures a "
        "component's importance best.",
    ),
    Reference(
        "L. Chan, A. Garriga-Alonso, N. Goldowsky-Dill, R. Greenblatt, J. Nitishinskaya, A. Radhakrishnan, B. Shlegeris, "
        "N. Thomas (2022): Causal scrubbing: a method for rigorously testing interpretability hypotheses. Alignment Forum",
        "https://www.alignmentforum.org/s/h95ayYYwMebGEYN5y",
        "Tests a hypothesis by resampling every activation that should not matter if it were true.",
    ),
    Reference(
        "P. Michel, O. Levy, G. Neubig (2019): Are Sixteen Heads Really Better than One? NeurIPS 2019, arXiv 1905.10650",
        "https://arxiv.org/abs/1905.10650",
        "Many heads can be masked (set to zero) after training with little damage.",
    ),
    Reference(
        "K. Wang, A. Variengien, A. Conmy, B. Shlegeris, J. Steinhardt (2022): Interpretability in the Wild: a Circuit "
        "for Indirect Object Identification in GPT-2 small. arXiv 2211.00593",
        "https://arxiv.org/abs/2211.00593",
        "Replaces heads by their mean over a reference distribution; finds backup heads that step in.",
    ),
    Reference(
        "T. McGrath, M. Rahtz, J. Kramár, V. Mikulik, S. Legg (2023): The Hydra Effect: Emergent Self-repair in Language "
        "Model Computations. arXiv 2307.15771",
        "https://arxiv.org/abs/2307.15771",
        "Later layers make up for an ablated one: a small change does not prove that a part is unused.",
    ),
)
