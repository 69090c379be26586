"""Every word of the pages that is not everyday English, explained for someone who has never seen it."""

import pandas as pd

from ablation_core.methods.registry import METHODS

_GROUPS: dict[str, dict[str, str]] = {
    "The model": {
        "transformer": "A network that reads in layers; the kind behind today's language models and many for images.",
        "layer": "One step of reading: attention, then a small network at each position. Layers are counted from 0.",
        "attention head": "A part of a layer that gathers information from other positions and writes a few numbers.",
        "neuron": "One of the numbers that a head hands to its output projection. 3.2:5 is neuron 5 of head 2 in layer 3.",
        "activation": "A neuron's value at one position of one text or image.",
        "output projection": "The matrix that mixes what all heads of a layer have written. Replacements are put in just before it.",
        "residual stream": "The running sum that passes through all layers; each layer reads it and adds to it. "
        "Its length tells how much an ablation blows it up or shrinks it.",
        "token, position": "A word piece of a text, or a patch of an image; and its place. A token that is only a part of a "
        "character shows as its bytes, ⟨C3⟩, and the last of the character's tokens as the character.",
        "window": "A stretch of text of a fixed number of tokens, which the model reads at once.",
        "modality": "What the model reads and predicts: the next word piece (causal), a hidden one (masked), or an image's class.",
    },
    "Taking something out": {
        "ablation": "Putting something else in a neuron's place, to see what the neuron was for.",
        "method": "What is put in its place: zero, mean, median, a peak, resampled values, or an optimal constant.",
        "zero": "The number 0, at every position.",
        "mean": "The neuron's average over the statistics part of the data.",
        "median": "The value with half of the neuron's activations on either side.",
        "peak": "The neuron's most usual value, its mode: the middle of the fullest bin of its histogram.",
        "bin": "One bar of a histogram: a range of values, and how many activations fall into it.",
        "peak-own-range, peak-whole-range": "The peak with the paper's two binnings: from the neuron's least to its greatest "
        "value, or over one range for all the model's neurons.",
        "peak-density": "The highest point of a smooth curve laid over the activations (a kernel density), without bins.",
        "density": "A smooth curve in place of the bars: a small bell laid over each activation (a Gaussian kernel, as wide as "
        "Silverman's rule says), or one bell with the same mean and standard deviation (a normal distribution).",
        "peak-half-sample": "Where the shortest half of the shortest half of … the activations lies, without bins.",
        "resampling": "Putting in the values that the neuron has on another input, position by position: another one of the "
        "data (resample-dataset), random characters, random tokens, a text that the model itself wrote, random pixels.",
        "optimal": "The constant that harms least, learned by trying: the floor below which no constant gets.",
        "removal, displacement": "A method's harm in two parts: what even the optimal constant costs (information is gone), and "
        "what the method costs beyond it (later layers meet a value they are not used to).",
        "moved, std": "How far a method moves the activations, in standard deviations (std): their usual distance from the mean.",
        "skew, second mode": "A distribution's lean to one side; and a second hump, at another usual value.",
    },
    "How good the model is": {
        "prediction": "One thing the model is asked for: the next word piece, a hidden one, or an image's class.",
        "loss": "How surprised the model is by the right answer, in nats a prediction; 0 is certainty.",
        "nat": "The unit of loss. A loss higher by 0.69 nats means half the probability for the right answer.",
        "perplexity": "The exponential of the loss: as unsure as among so many equally likely answers.",
        "top-1, top-10": "How often the right answer is the model's first guess, or among its first ten.",
        "KL": "Kullback-Leibler divergence: how much the ablated model's guesses differ from the whole model's, right or "
        "wrong, in nats. 0 is no difference; it is never negative.",
        "baseline": "The whole model, nothing taken out, on the same predictions.",
        "chance": "What blind guessing among all answers would reach.",
    },
    "How sure a number is": {
        "change": "With the ablation minus without it, on the same predictions (paired).",
        "95 % interval": "Where the true change probably lies, given that only so many predictions were looked at. Whole texts "
        "or images are resampled for it (a bootstrap), since the words of one text are not independent. Over a few seeds Student's t distribution gives it.",
        "told from no effect": "The interval, or a test, leaves 0 out. Not told is no proof that there is no effect.",
        "noise floor": "What taking out as many random neurons of the same layers does: something to compare with.",
        "p": "How often chance alone would give so large a change, were there none.",
        "false discovery, q": "A head called effective that is not. With many heads some look so by chance; q is a p-value made "
        "stricter for that (Benjamini and Hochberg), and q up to 5 % lets through 5 % false ones among those told.",
        "seed": "A number that fixes everything random, so that a run can be repeated. A band over seeds shows how much the "
        "draw matters.",
        "rank correlation (Spearman's ρ)": "Whether two methods put the heads in the same order: 1 the same, 0 unrelated, −1 "
        "reversed.",
        "Friedman's test": "Asks whether the methods' ranks differ more over the seeds than chance alone would make them.",
        "mean rank, mean height": "A method's place among the methods, averaged over seeds; and its curve's average (the area "
        "under it over its width).",
        "digest": "A short name made from all the content of a file: where two are the same, so are the numbers.",
        "statistics part, evaluation part": "Two parts of the data that do not meet: means and peaks are taken from one, harm "
        "is measured on the other.",
    },
    "Quicker ways": {
        "estimate": "A head's or neuron's harm worked out from slopes (gradients) without ablating it: at once for all, but only "
        "good where the replacement is near the usual value. Drawn dashed, until the exact value is there.",
        "of second order": "The estimate knows the slope and the bend of the loss, not what lies beyond.",
        "standard error": "How far an estimate would typically move with other predictions.",
        "adaptive": "A sweep that looks on the way and stops asking about heads that are decided.",
        "sweep, pruning curve": "Every head taken out, one at a time; and more and more random neurons taken out together.",
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
    return _GROUPS | {"Taking something out": _GROUPS["Taking something out"] | more}


def words() -> dict[str, pd.DataFrame]:
    """By subject: a table of words and what they mean."""
    return {
        subject: pd.DataFrame(list(meanings.items()), columns=["word", "what it means"]).set_index("word")
        for subject, meanings in _groups().items()
    }


def explained() -> str:
    """All words, in small letters."""
    return " ".join(word for meanings in _groups().values() for word in meanings).lower()
