"""What is asked of a data set, in one piece, on its way from `load_data` to whoever reads the source."""

from dataclasses import dataclass
from typing import Any

from ablation_core.data.dataset import Data
from ablation_core.data.made_for import reader_key
from ablation_core.data.references import Split, source_digest
from ablation_core.models.loaded import LoadedModel

_SHARED = ("ref", "split", "seq_len", "seed", "batch_size", "documents", "given")  # fields of `Data` as well


@dataclass(frozen=True, kw_only=True)
class DataRequest:
    """The arguments of `load_data`, checked.

        DataRequest(ref="task:ioi", split="evaluation", predictions=100, seq_len=128, batch_size=32, seed=0)

    Attributes:
        seq_len: tokens per window; None: as many as the longest row has.
        documents: whether each document has windows of its own; None where that is no question.
        given: what a person gave in place of a reference.
    """

    ref: str
    split: Split
    predictions: int
    seq_len: int | None
    batch_size: int
    seed: int
    documents: bool | None = None
    given: Any = None

    def data(self, model: LoadedModel, **parts: Any) -> Data:
        """The data set that this becomes; `parts` are the fields of `Data` that only who read the source knows."""
        asked = {name: getattr(self, name) for name in _SHARED}
        return Data(**(asked | parts), source=source_digest(self.ref), made_for=reader_key(model))
