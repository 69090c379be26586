"""Attention of a few queries more: whatever a model hands to torch's function, its answer is the plain one's."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as attention
from torch.overrides import TorchFunctionMode

from ablation_core.engine import few_queries
from ablation_core.engine.few_queries import enough_queries

QUERIES, KEYS, VALUES = torch.randn(3, 2, 4, 16, 8, generator=torch.Generator().manual_seed(0))
SEEN = torch.rand(2, 4, 3, 16, generator=torch.Generator().manual_seed(1)) > 0.5
SEEN[..., 0] = True
MASKS = {
    "none": None,
    "each its own": SEEN,
    "of all heads": SEEN[:, :1],
    "of all queries": SEEN[:, :, :1],
    "two dimensions": SEEN[0, 0],
    "numbers": torch.randn(2, 4, 3, 16, generator=torch.Generator().manual_seed(2)),
}


@pytest.fixture(autouse=True)
def eight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever this processor needs."""
    monkeypatch.setattr(few_queries, "fewest_queries", lambda: 8)


class Counted(TorchFunctionMode):
    """How many queries torch's attention is given."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: list[int] = []

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is attention:
            self.counts.append((args[0] if args else (kwargs or {})["query"]).shape[-2])
        return func(*args, **kwargs or {})


def agrees(*args: Any, **kwargs: Any) -> None:
    expected = attention(*args, **kwargs)
    with Counted() as counted, enough_queries():
        found = attention(*args, **kwargs)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert counted.counts == [8]


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_masks_by_name_and_by_place(mask: Tensor | None) -> None:
    late = QUERIES[:, :, -3:]
    agrees(late, KEYS, VALUES, attn_mask=mask)
    agrees(late, KEYS, VALUES, mask)
    agrees(query=late, key=KEYS, value=VALUES, attn_mask=mask, dropout_p=0.0, is_causal=False)


def test_what_else_attention_takes() -> None:
    late = QUERIES[:, :, -3:]
    agrees(late, KEYS, VALUES, is_causal=True)
    agrees(late, KEYS, VALUES, None, 0.0, True)
    agrees(late, KEYS[:, :2], VALUES[:, :2], scale=0.3, enable_gqa=True)
    with torch.inference_mode():
        agrees(QUERIES[:, :, -1:], KEYS, VALUES)


def test_it_is_of_its_own_thread() -> None:
    def plain(_: int) -> Tensor:
        return attention(QUERIES[:, :, -1:], KEYS, VALUES)

    with ThreadPoolExecutor(1) as other, Counted() as counted, enough_queries():
        here, there = plain(0), other.submit(plain, 0).result()
    torch.testing.assert_close(here, there, rtol=0, atol=1e-6)
    assert counted.counts == [8], "the other thread's is not seen here"


def test_enough_are_left_as_they_are() -> None:
    with Counted() as counted, enough_queries():
        found = attention(QUERIES, KEYS, VALUES, is_causal=True)
    assert counted.counts == [16] and torch.equal(found, attention(QUERIES, KEYS, VALUES, is_causal=True))
