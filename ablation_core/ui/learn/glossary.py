"""The glossary: every technical term that the pages use, explained for someone who has never met it."""

import pandas as pd

from ablation_core.methods.registry import METHODS

_GROUPS: dict[str, dict[str, str]] = {
    "The model": {
        "transformer": "A network that reads in layers: the kind behind today's language models and many image models.",
        "layer": "One step of reading: attention, then a small network at each position. Layers are counted from 0.",
        "attention head": "A part of a layer that gathers information from other positions and writes a few numbers.",
        "neuron": "One of the numbers that a head passes to its output projection. 3.2:5 is neuron 5 of head 2 in layer 3.",
        "activation": "A neuron's value at one position of one text or image.",
        "z": "The outputs of all heads of a layer, side by side: what the output projection reads. Neurons are its dimensions.",
        "output projection": "The matrix that mixes the outputs of a layer's heads. Neurons are replaced just before it.",
        "residual stream": "The running sum that passes through all layers; each layer reads it and adds to it. "
        "Its length shows how much an ablation inflates or shrinks it.",
        "token, position": "A piece of a word in a text, or a patch of an image; and its place in the sequence. A token that "
        "is only part of a character is shown as its bytes, ⟨C3⟩; in shaded text the tokens of one character share a box.",
        "window": "A stretch of text of a fixed number of tokens, which the model reads at once.",
        "modality": "What the model reads and predicts: the next token (causal), a masked token (masked), or an image's class.",
    },
    "What a head does": {
        "attention pattern": "How much of its attention each position gives to each other one; every row sums to 1.",
        "score": "How far a head's pattern is of a known kind, as a mean over positions: 0 is not at all, 1 is always.",
        "previous token, duplicate token": "Heads that look at the token before, or at other places with the same token.",
        "induction head": "A head that continues what has been seen: after A B … A it looks at B.",
        "first token, self": "Attention to the sequence's first position, where heads with nothing to do often look (a sink); "
        "and of a position to itself.",
        "entropy, distance": "How widely a head spreads its attention, in nats; and how far away it looks.",
        "direct effect": "What a head's own output adds to the right answer's logit, without what later layers make of it.",
        "random twin": "The same architecture with random weights: what its map shows too was not learned.",
    },
    "Ablation": {
        "ablation": "Replacing a neuron's value, to find out what the neuron was for.",
        "method": "What replaces the value: zero, mean, median, a peak, resampled values, or an optimal constant.",
        "zero": "The number 0, at every position.",
        "mean": "The neuron's average over the statistics part of the data.",
        "mean-positional": "The neuron's average at the same position of the statistics part's texts or images.",
        "counterfactual": "The neuron's value at the same position of a prompt that differs in one thing.",
        "median": "The value with half of the neuron's activations on either side.",
        "peak": "The neuron's most frequent value, its mode: the middle of the fullest bin of its histogram.",
        "peak interval": "Where the peak falls in 95% of samples of as many positions; a wide one means an uncertain peak.",
        "bin": "One bar of a histogram: a range of values, and how many activations fall into it.",
        "peak-own-range, peak-whole-range": "The peak with the paper's two binnings: from the neuron's smallest to its largest "
        "value, or over one range for all of the model's neurons.",
        "peak-density": "The highest point of a smooth curve over the activations (a kernel density), without bins.",
        "density": "A smooth curve in place of the bars: a small bell over each activation (a Gaussian kernel, as wide as "
        "Silverman's rule says), or one bell with the same mean and standard deviation (a normal distribution).",
        "peak-half-sample": "Where the shortest half of the shortest half of … the activations is, without bins.",
        "resampling": "Using the values that the neuron has on another input, position by position: another one of the "
        "data (resample-dataset), random characters, random tokens, a text that the model itself wrote, random pixels.",
        "optimal": "The learned constant with the smallest loss: no constant can do better.",
        "unavoidable loss, extra loss": "A constant's increase in loss in two parts: what even the optimal constant costs, since "
        "information is gone, and what the constant costs beyond that, since later layers receive an unusual value.",
        "moved, std": "How far a method moves the activations, in standard deviations (std): their usual distance from the mean.",
        "skew, second hump": "How far a distribution leans to one side; and another frequent value, away from the peak.",
    },
    "Performance": {
        "prediction": "One thing the model is asked for: the next token, a masked token, or an image's class.",
        "loss": "How surprised the model is by the right answer, in nats per prediction; 0 is certainty.",
        "nat": "The unit of loss. A loss higher by 0.69 nats means half the probability for the right answer.",
        "perplexity": "The exponential of the loss: as uncertain as among so many equally likely answers.",
        "top-1, top-10": "How often the right answer is the model's top guess, or among its ten top guesses.",
        "pp": "Percentage points: from 40% to 42% is a change of 2 pp.",
        "KL": "Kullback-Leibler divergence: how much the ablated model's predictions differ from the clean model's, right or "
        "wrong, in nats. 0 is no difference; it is never negative.",
        "baseline": "The clean model, with nothing ablated, on the same predictions.",
        "chance": "What guessing at random among all answers would reach.",
    },
    "Uncertainty": {
        "change": "With the ablation minus without it, on the same predictions (paired).",
        "95% interval": "Where the true change probably is, given a limited sample of predictions. Whole texts "
        "or images are resampled for it (a bootstrap), since the tokens of one text are not independent. Over a few seeds "
        "Student's t distribution gives it.",
        "significant": "The interval, or a test, excludes 0. Not significant does not prove that there is no effect.",
        "noise floor": "What replacing as many random neurons of the same layers by the same method does: a scale to compare "
        "with. The grey bands show it.",
        "p": "How often chance alone would give so large a change, if there were no effect.",
        "false discovery rate (FDR), q": "The share of heads called significant that are not. With many heads, some look so by "
        "chance; q is a p-value corrected for that (Benjamini and Hochberg), and q up to 5% accepts 5% false discoveries.",
        "seed": "A number that fixes everything random, so that a run can be repeated. A band over seeds shows how much the "
        "draw matters.",
        "rank correlation (Spearman's ρ)": "Whether two methods rank the heads in the same order: 1 the same, 0 unrelated, −1 "
        "reversed.",
        "Friedman's test": "Asks whether the methods' ranks differ more over the seeds than chance alone would make them.",
        "mean rank, mean height": "A method's rank among the methods, averaged over seeds; and its curve's average (the area "
        "under it divided by its width).",
        "digest": "A short name computed from the content of a file: if two are the same, so are the numbers.",
        "statistics part, evaluation part": "Two parts of the data that do not overlap: means and peaks come from one, effects "
        "are measured on the other.",
    },
    "Faster ways": {
        "estimate": "The effect of a head or neuron computed from gradients without ablating it: at once for all, but accurate "
        "only where the replacement is near the usual value. Italic on the map, until the exact value is measured.",
        "second-order": "An estimate that uses the slope and the curvature of the loss, and nothing beyond.",
        "standard error": "How far an estimate would typically move with other predictions.",
        "adaptive": "A sweep that tests at planned interim looks and stops measuring heads that are decided.",
        "stopped for futility": "A head that is unlikely to become significant, however many predictions are measured.",
        "sweep, pruning curve": "Every head removed, one at a time; and more and more random neurons removed together.",
    },
}  # fmt: skip


def _groups() -> dict[str, dict[str, str]]:
    """The words by subject, and by its own description every method that they leave out."""
    known = " ".join(word for meanings in _GROUPS.values() for word in meanings).lower()
    more = {
        name: method.description
        for name, method in METHODS.items()
        if name.split("-")[0].removesuffix("e") not in known  # resample: its kinds are explained under resampling
    }
    return _GROUPS | {"Ablation": _GROUPS["Ablation"] | more}


def words() -> dict[str, pd.DataFrame]:
    """By subject: a table of terms and their meaning."""
    return {
        subject: pd.DataFrame(list(meanings.items()), columns=["term", "meaning"]).set_index("term")
        for subject, meanings in _groups().items()
    }


def explained() -> str:
    """All terms, in lower case."""
    return " ".join(word for meanings in _groups().values() for word in meanings).lower()
