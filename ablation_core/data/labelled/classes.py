"""From a label, as data has it, to the model's class: by name, else by number; what is neither is refused with a sentence.

    labels = ClassLabels(("negative", "positive"))
    labels("Positive"), labels("1"), labels(0)  # (1, 1, 0)

A data set that numbers its classes may name them too, in another order than the model: then the names decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ablation_core.data.images import match_class
from ablation_core.errors import DataError, a_type

_SHOWN = 8


@dataclass(frozen=True)
class ClassLabels:
    """A model's class names, and those that a data set gives to its numbers, where it does.

    Raises (at the first label):
        DataError: only some of the data set's names are the model's.
    """

    model: tuple[str, ...]
    data: tuple[str, ...] = ()

    def __call__(self, label: Any, where: str = "") -> int:
        """The number of the model's class.

        Args:
            where: what the label is of, in a sentence: `row 3 of reviews.csv`.

        Raises:
            DataError: the model has no such class, or more than one.
        """
        label = label.item() if hasattr(label, "item") and getattr(label, "ndim", 0) == 0 else label
        if isinstance(label, bool):
            label = str(label) if match_class(str(label), self.model) is not None else int(label)
        if isinstance(label, float) and label.is_integer():
            label = int(label)
        if isinstance(label, int):
            return self._numbered(label, where)
        if not isinstance(label, str):
            raise DataError(
                f"The label{_of(where)} is {a_type(label)}; a class is one name or one number. Data with several "
                f"classes per input is not supported."
            )
        found = match_class(label.strip(), self.model)
        if found is None and label.strip().endswith(".0") and label.strip()[:-2].isdecimal():
            return self._numbered(int(label.strip()[:-2]), where)  # numbers beside gaps, as pandas writes them
        if found is None and label.strip().casefold() in ("true", "false"):  # as tables write them
            return self._numbered(int(label.strip().casefold() == "true"), where)
        if found is None:
            raise self._unknown(label, where)
        return found

    def note(self) -> str:
        """A sentence where the data set's own names are not used; empty otherwise."""
        if not self.data or self._by_name() is not None or all(one.startswith("LABEL_") for one in self.model):
            return ""
        return (
            f"The data set calls its classes {_listed(self.data)}, the model its own {_listed(self.model)}: they were "
            f"matched by number."
        )

    def _by_name(self) -> dict[int, int] | None:
        """The data set's number → the model's, where its names are the model's; None where none is."""
        found = {number: match_class(name, self.model) for number, name in enumerate(self.data) if not name.isdecimal()}
        known = {number: target for number, target in found.items() if target is not None}
        if not known:
            return None
        if len(known) < len(found):
            strange = self.data[next(number for number, target in found.items() if target is None)]
            raise DataError(
                f"The data set has the class {strange!r}, which the model has not; its classes are {_listed(self.model)}."
            )
        return known

    def _numbered(self, label: int, where: str) -> int:
        if self.data:
            if not 0 <= label < len(self.data):
                raise self._unknown(label, where)
            if (known := self._by_name()) is not None:
                return known[label]
            if len(self.data) != len(self.model):
                raise DataError(
                    f"The data set has the {len(self.data)} classes {_listed(self.data)}, and the model other "
                    f"{len(self.model)}: {_listed(self.model)}. They cannot be matched."
                )
        names = [number for number, name in enumerate(self.model) if name == str(label)]
        if names and names != [label]:
            raise DataError(
                f"The label {label}{_of(where)} may be the class called {label!r} (number {names[0]}) or class number "
                f"{label}: write labels as texts to name classes."
            )
        if not 0 <= label < len(self.model):
            raise self._unknown(label, where)
        return label

    def _unknown(self, label: Any, where: str) -> DataError:
        shown = repr(label if len(str(label)) <= 60 else f"{str(label)[:57]}…")
        return DataError(
            f"The model has no class {shown}{_of(where)}; its {len(self.model)} classes are {_listed(self.model)}. Write "
            f"labels as these names, or as numbers from 0."
        )


def is_missing(label: Any, names: Sequence[str] = ()) -> bool:
    """Whether a row has no label: none, an empty text, NaN, or -1, as data sets hide those of their test part.

    Args:
        names: the model's classes, one of which may be called so.
    """
    if label is None or np.ndim(label):
        return label is None
    if str(label).strip() in names:
        return False
    if isinstance(label, str):  # of a table, whose numbers are texts
        return label.strip() in ("", "-1", "-1.0")
    return label == -1 or label != label


def _of(where: str) -> str:
    return f" ({where})" if where else ""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(str, names[:_SHOWN])) + (", …" if len(names) > _SHOWN else "")
