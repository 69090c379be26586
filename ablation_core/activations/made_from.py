"""What statistics say they were made from, and the settings they were counted with. Needs neither numpy nor torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from ablation_core.errors import StatisticsError
from ablation_core.models.info import how_they_differ

if TYPE_CHECKING:
    from ablation_core.models.info import ModelInfo
    from ablation_core.models.loaded import LoadedModel

FINE_BINS = 600  # divisible by 100, 50, 200, 60, …: those coarser bins are equally wide
Binning = Literal["robust", "min-max"]
BINNINGS: tuple[Binning, ...] = ("robust", "min-max")
FORMAT_VERSION = 1  # of the files that keep statistics


def check_made_from(provenance: dict, model: LoadedModel | ModelInfo, what: str) -> None:
    """Refuse statistics of another model.

    Args:
        what: the statistics, as the beginning of the sentence.

    Raises:
        StatisticsError: naming the field that differs.
    """
    for field, mine in (("model_fingerprint", model.fingerprint), ("dtype", model.dtype)):
        if (made := provenance.get(field)) != mine:
            why = "" if field == "dtype" else f" ({how_they_differ(made, mine)})"
            raise StatisticsError(
                f"{what} were made from another model: its {field} is {made} (model {provenance.get('model')}), that of "
                f"{model.ref} is {mine}{why}. Compute them for this one."
            )
    if hooks := provenance.get("hooks"):
        from ablation_core.models.own_code import hooks_of

        if hooks != hooks_of(getattr(model, "module", None)):
            raise StatisticsError(
                f"{what} were computed while hooks of your own changed what heads compute, and these are not on "
                f"{model.ref} now. Put them on again, or compute statistics without them."
            )
