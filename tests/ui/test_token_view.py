"""The shaded text: one box for a character that several tokens write."""

import pytest

from ablation_core.report.token_html import ShadedToken
from ablation_core.ui.token_view import by_character


def test_the_tokens_of_a_character_share_a_box_with_the_sum_of_their_changes() -> None:
    texts = ["s", " ⟨E2⟩", "⟨80⟩", "’", "s"]
    changes = [0.5, 0.25, -1.0, 2.0, 0.125]
    tokens = [
        ShadedToken(text, change, f"loss of {place}")
        for place, (text, change) in enumerate(zip(texts, changes, strict=True))
    ]
    boxes = by_character(tokens, texts)
    assert [box.text for box in boxes] == ["s", " ’", "s"]
    assert [box.change for box in boxes] == pytest.approx([0.5, 1.25, 0.125])
    assert boxes[1].details == "⟨E2⟩: loss of 1\n⟨80⟩: loss of 2\n’: loss of 3"


def test_a_masked_token_keeps_its_own_box() -> None:
    texts = ["⟨C3⟩", "ï"]
    tokens = [ShadedToken("⟨AB⟩", 0.5), ShadedToken("ï")]
    assert by_character(tokens, texts) == tokens
