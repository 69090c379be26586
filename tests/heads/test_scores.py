"""Head scores on patterns made by hand, against TransformerLens's formula, and on an induction head made by hand."""

import numpy as np
import pytest
import torch
import transformers

from ablation_core import load_data, load_model
from ablation_core.heads.attention import layer_patterns
from ablation_core.heads.kinds import SCORES, Seen
from ablation_core.heads.scores import head_scores, repeated_tokens
from ablation_core.models.architectures import ARCHITECTURES
from ablation_core.models.loaded import LoadedModel, wrap

TOKENS = torch.tensor([[7, 8, 7, 8]])
# one head, rows by hand
PATTERN = torch.tensor([[[[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25, 0.5, 0.25, 0], [0.1, 0.2, 0.3, 0.4]]]])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("previous_token", (0.5 + 0.5 + 0.3) / 4),
        ("duplicate_token", (0.25 + 0.2) / 4),  # 2 → 0 and 3 → 1
        ("induction", (0.5 + 0.3) / 2),  # 2 → 1 and 3 → 2, the two rows with an earlier copy
        ("first_token", (1 + 0.5 + 0.25 + 0.1) / 4),
        ("self", (1 + 0.5 + 0.25 + 0.4) / 4),
        ("distance", (0.5 + (0.5 + 0.5) + (0.3 + 0.4 + 0.3)) / 4),
        ("entropy", (np.log(2) + 1.5 * np.log(2) + 1.2798542) / 4),
    ],
)
def test_scores_by_hand(name: str, expected: float) -> None:
    seen = Seen(torch.ones(1, 4, dtype=torch.bool), TOKENS)
    assert SCORES[name].of(PATTERN, seen).item() == pytest.approx(expected, abs=1e-6)


def test_padding_counts_for_nothing() -> None:
    padded = torch.nn.functional.pad(PATTERN, (2, 0, 2, 0))
    padded[..., :2, :2] = 0.5
    counted = torch.tensor([[False, False, True, True, True, True]])
    tokens = torch.nn.functional.pad(TOKENS, (2, 0), value=7)
    bare = Seen(torch.ones(1, 4, dtype=torch.bool), TOKENS)
    for score in SCORES.values():
        found = score.of(padded, Seen(counted, tokens)).item()
        assert found == pytest.approx(score.of(PATTERN, bare).item(), abs=1e-6), score.name


def test_distance_between_patches() -> None:
    """CLS and 2 × 2 patches: every patch looks at the one across."""
    weights = torch.zeros(1, 1, 5, 5)
    weights[..., 0, 0] = 1
    for row, column in ((1, 4), (2, 3), (3, 2), (4, 1)):
        weights[..., row, column] = 1
    seen = Seen(torch.ones(1, 5, dtype=torch.bool), grid=(2, 2))
    assert SCORES["distance"].of(weights, seen).item() == pytest.approx(2**0.5, abs=1e-6)


def lens_score(pattern: np.ndarray, detection: np.ndarray) -> float:
    """TransformerLens's `compute_head_attention_similarity_score` with its default `error_measure="mul"`."""
    return float((pattern * detection).sum() / pattern.sum())


def test_they_are_transformer_lens_detectors(opt_mini: LoadedModel) -> None:
    data = load_data("python-docs", opt_mini, predictions=600, seq_len=64)
    scores = head_scores(opt_mini, data)
    found: dict[str, list[float]] = {"previous_token": [], "duplicate_token": []}
    for batch in data:
        patterns = layer_patterns(opt_mini, batch, 2)[:, 1]
        for pattern, ids in zip(patterns, batch.inputs["input_ids"].tolist(), strict=True):
            before, copies = np.zeros(pattern.shape), np.zeros(pattern.shape)
            for row in range(len(ids)):
                for column in range(row):
                    before[row, column] = column == row - 1
                    copies[row, column] = ids[column] == ids[row]
            found["previous_token"].append(lens_score(pattern, before))
            found["duplicate_token"].append(lens_score(pattern, copies))
    for name, values in found.items():
        assert scores[name][2, 1] == pytest.approx(np.mean(values), abs=1e-5)
        assert scores.spread(name)[2, 1] == pytest.approx(np.std(values, ddof=1), abs=1e-5)
        interval = scores.interval(name, (2, 1))
        assert interval.low < interval.mean < interval.high


def induction_model(vocabulary: int, length: int) -> LoadedModel:
    """Two layers of one-hot wires: head 0.0 copies the token before, head 1.0 looks for it and finds the one behind.

    The residual stream has the token, its place, and the token before it. GPT-2 scales scores by 1/√head_dim and
    normalises its input, so that queries are large: only the best column counts.
    """
    width = 2 * vocabulary + length
    config = transformers.GPT2Config(vocab_size=vocabulary, n_embd=width, n_layer=2, n_head=1, n_positions=length,
                                     n_inner=4, bos_token_id=0, eos_token_id=0)  # fmt: skip
    module = transformers.GPT2LMHeadModel(config).eval().requires_grad_(False)
    for name, weight in module.named_parameters():
        weight.fill_(1.0 if "ln_" in name and name.endswith("weight") else 0.0)
    token, place, before = range(vocabulary), range(vocabulary, vocabulary + length), vocabulary + length
    module.lm_head.weight = torch.nn.Parameter(torch.zeros(vocabulary, width), requires_grad=False)
    for one in token:
        module.transformer.wte.weight[one, one] = 1
    for one in range(length):
        module.transformer.wpe.weight[one, vocabulary + one] = 1
    first, second = (block.attn for block in module.transformer.h)
    for one in range(length - 1):  # the query of place p + 1 is the key of place p
        first.c_attn.weight[place[one + 1], one] = 100
        first.c_attn.weight[place[one], width + one] = 100
    for one in token:
        first.c_attn.weight[one, 2 * width + one] = 1  # its value is the token,
        first.c_proj.weight[one, before + one] = 1  # written down as the token before
        second.c_attn.weight[one, one] = 100  # the query is the token,
        second.c_attn.weight[before + one, width + one] = 100  # the key the token before
    return wrap("hand-made", module, ARCHITECTURES["gpt2"])


def test_an_induction_head_made_by_hand_scores_as_one() -> None:
    model = induction_model(vocabulary=40, length=48)

    class Windows:
        """What the scores read of data: 8 random windows."""

        sequences, batch_size, seed, length, seq_len = 8, 4, 0, 48, 48

        def __len__(self) -> int:
            return 2

        def numbers(self, number: int) -> range:
            return range(4 * number, 4 * number + 4)

        def rows(self, numbers: range) -> object:
            from ablation_core.data.dataset import Batch

            ids = torch.randint(0, 40, (len(numbers), 48), generator=torch.Generator().manual_seed(numbers[0]))
            return Batch({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, ids)

    scores = head_scores(model, Windows())
    assert scores.previous_token[0, 0] == pytest.approx(47 / 48, abs=0.01)
    # The first token has none before it: 0.0 can only look at itself there, so that 1.0 finds its copy in two places.
    assert scores.induction[1, 0] == pytest.approx(1 - 0.5 / 24, abs=1e-3)
    assert scores.induction[0, 0] < 0.1
    assert scores.previous_token[1, 0] < 0.2


@pytest.mark.parametrize("name", ["roberta-mini", "vit-mini"])
def test_masked_and_vision_scores_are_a_plain_loop_over_patterns(name: str) -> None:
    model = load_model(name)
    vision = model.modality == "vision"
    data = load_data("fashion-mnist" if vision else "python-docs", model, predictions=12 if vision else 60, seq_len=48)
    scores, found = head_scores(model, data), []
    side = 7
    for batch in data:
        for pattern in layer_patterns(model, batch, 3)[:, 4].astype(float):
            length = len(pattern)
            entropy = -sum(weight * np.log(weight) for weight in pattern.ravel() if weight > 0) / length
            apart, first = 0.0, length - side**2 if vision else 0
            for row in range(first, length):
                for column in range(first, length):
                    places = [divmod(place - first, side) for place in (row, column)]
                    far = np.hypot(*np.subtract(*places)) if vision else abs(row - column)
                    apart += pattern[row, column] * far
            apart /= pattern[first:, first:].sum() if vision else length
            found.append((np.trace(pattern) / length, pattern[:, 0].mean(), entropy, apart))
    expected = np.mean(found, axis=0)
    mine = [scores[one][3, 4] for one in ("self", "first_token", "entropy", "distance")]
    np.testing.assert_allclose(mine, expected, rtol=1e-4)


def test_repeated_tokens_are_written_twice(opt_mini: LoadedModel) -> None:
    data = load_data("python-docs", opt_mini, predictions=600, seq_len=64)
    ids = repeated_tokens(opt_mini, data, 0)
    size = ids.shape[1] // 2
    assert len(ids) == 5 and (ids[:, 1 : 1 + size] == ids[:, 1 + size :]).all()
    assert all(len(set(row[1 : 1 + size].tolist())) == size for row in ids)


def test_what_makes_no_sense_is_none(bundled_model: LoadedModel) -> None:
    ref = "fashion-mnist" if bundled_model.modality == "vision" else "python-docs"
    scores = head_scores(bundled_model, load_data(ref, bundled_model, predictions=20, seq_len=64))
    missing = {name for name in SCORES if scores[name] is None}
    text = {"previous_token", "duplicate_token", "induction"}
    assert missing == {"causal": set(), "masked": {"induction"}, "vision": text}[bundled_model.modality]
    for name in set(SCORES) - missing:
        assert scores[name].dtype == np.float32 and scores[name].shape == (6, 6) and np.isfinite(scores[name]).all()
    assert len(scores.to_frame()) == 36 and set(scores.to_dict()) == set(SCORES)
