"""What prompts spell that a reader may take otherwise than the model: special tokens, line ends, no place for the answer."""

from dataclasses import dataclass, field, replace

from ablation_core.data.files.text_files import plain_line_ends
from ablation_core.data.tasks.pairs import Pair
from ablation_core.data.tasks.prompts import mark_of
from ablation_core.models.loaded import LoadedModel
from ablation_core.models.tokenizer import encode, special_ids


@dataclass
class Spelled:
    """What was met while prompts were read, for the notes.

    Attributes:
        special: the special tokens that prompts or answers spell, and in how many prompts.
        unmarked: how many prompts of a masked model do not say where the answer belongs.
        line_ends: a sentence about the first prompt with other line ends.
    """

    special: dict[str, int] = field(default_factory=dict)
    unmarked: int = 0
    line_ends: str = ""

    def looked_at(self, model: LoadedModel, pair: Pair, name: str) -> Pair:
        """The pair with plain line ends."""
        if not isinstance(pair.prompt, str):
            return pair  # a task about tokens
        prompt, changed = plain_line_ends(pair.prompt, name)
        other = pair.counterfactual
        other = plain_line_ends(other, name)[0] if isinstance(other, str) else other
        self.line_ends = self.line_ends or changed
        texts = [prompt, other] if model.predicts_class else [prompt, other, pair.right, pair.wrong]
        expected = set()
        if model.modality == "masked":
            mark = mark_of(model, prompt)
            self.unmarked += mark is None
            expected = {model.tokenizer.mask_token_id}
        found = set().union(*(encode(model, text) for text in texts if isinstance(text, str)))
        for token in sorted((found & special_ids(model)) - expected):
            written = model.tokenizer.convert_ids_to_tokens(token)
            self.special[written] = self.special.get(written, 0) + 1
        return replace(pair, prompt=prompt, counterfactual=other)

    def sentences(self, count: int) -> list[str]:
        """What there is to say, of so many prompts."""
        said = [self.line_ends] if self.line_ends else []
        if self.special:
            tokens = ", ".join(f"{token} in {number:,}" for token, number in self.special.items())
            said.append(
                f"Of {count:,} prompts some spell special tokens ({tokens}): they are read as such, not as letters."
            )
        if self.unmarked:
            said.append(f"{self.unmarked:,} of {count:,} prompts have no mask; their answers stand at their ends.")
        return said
