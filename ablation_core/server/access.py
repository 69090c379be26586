"""What may be named in the app: everything on one's own machine, only what is offered on a shared server.

Whoever runs a server for others sets `ABLATION_SHARED=1`, and may list what is offered in `ABLATION_MODELS` and
`ABLATION_DATA`, separated by spaces. The decision is taken once, when the server starts; the command line is not
affected. A name that is not offered is refused before anything is looked up, with the same sentence whatever it is, so
that nobody learns which files the server has.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ablation_core import bundled
from ablation_core.data.references import TASK_NAMES, is_images, is_labelled, is_text
from ablation_core.errors import DataError, ModelError
from ablation_core.storage import CACHE, PUBLISHED

DATA = ("python-docs", "python-code", "fashion-mnist")
BUILT_IN_TASKS = tuple(f"task:{name}" for name in TASK_NAMES)  # drawn from a seed: they read no file
MOST_PREDICTIONS = 20_000  # as many as statistics take
_KINDS = {"text": "text", "images": "images", "labelled": "labelled texts"}
SECOND_MODEL = "model: "  # before a model's reference in the box that else names a second data set
_OFF = ("", "0", "no", "off", "false")


@dataclass(frozen=True)
class Access:
    """What people who reach the app may do.

    Attributes:
        shared: whether they are others than the one who runs it.
        models, data: what is offered to them.
        keeps_runs: whether finished units of long runs can be saved, in the cache folder's folder of runs.
    """

    shared: bool = False
    models: tuple[str, ...] = ()
    data: tuple[str, ...] = ()
    keeps_runs: bool = True

    def offered_models(self, usual: tuple[str, ...]) -> tuple[str, ...]:
        """What a box of models lists."""
        return self.models if self.shared else usual

    def offered_data(self, kind: str, usual: tuple[str, ...]) -> tuple[str, ...]:
        """What a box of data lists, of the kind `text`, `images` or `labelled` (texts).

        Raises:
            DataError: nothing of that kind is offered.
        """
        if not self.shared:
            return usual
        fits = {"text": is_text, "images": is_images, "labelled": is_labelled}[kind]
        offered = tuple(ref for ref in self.data if fits(ref))
        if not offered:
            raise DataError(f"This server offers no {_KINDS[kind]} to measure on; choose another model.")
        return offered

    def check_model(self, ref: str) -> str:
        """The reference, if it may be named.

        Raises:
            ModelError: it is not offered.
        """
        if self.shared and ref not in self.models:
            raise ModelError(
                f"This server does not offer the model {_short(ref)}. Choose one of {', '.join(self.models)}."
            )
        return ref

    def check_data(self, ref: str) -> str:
        """The reference, if it may be named.

        Raises:
            DataError: it is not offered.
        """
        if self.shared and ref not in self.data and ref not in BUILT_IN_TASKS:
            raise DataError(f"This server does not offer the data {_short(ref)}. Choose one of {', '.join(self.data)}.")
        return ref

    def check_predictions(self, count: int) -> int:
        """The number of predictions, if so many may be asked for.

        Raises:
            DataError: they are too many.
        """
        if self.shared and count > MOST_PREDICTIONS:
            raise DataError(f"This server scores at most {MOST_PREDICTIONS:,} predictions, not {count:,}.")
        return count

    def public(self, text: str, folder: Path = CACHE) -> str:
        """A script or command as a visitor may copy it: no folder of a shared server, but where the visitor's own
        project keeps such a file, once it is computed or imported there."""
        if not self.shared:
            return text
        return text.replace(str(folder), "cached_stats").replace(str(PUBLISHED), "cached_stats")

    def refusals(self, address: Mapping[str, str]) -> list[str]:
        """A sentence for each reference in a page's address that is not offered."""
        sentences = []
        for name in ("model", "text", "images", "labelled", "beside", "with"):
            value = address.get(name, "")
            of_model = name == "model" or (name == "with" and value.startswith(SECOND_MODEL))
            check = self.check_model if of_model else self.check_data
            try:
                if name in address:
                    check(value.removeprefix(SECOND_MODEL).strip() if of_model else value)
            except (ModelError, DataError) as error:
                sentences.append(str(error))
        return sentences


def decide(environment: Mapping[str, str], cache: Path) -> Access:
    """What the operator has decided; an unknown value of `ABLATION_SHARED` counts as yes."""
    if environment.get("ABLATION_SHARED", "").strip().lower() in _OFF:
        return Access()
    models, data = (environment.get(name, "").split() for name in ("ABLATION_MODELS", "ABLATION_DATA"))
    runs = cache / "runs" if (cache / "runs").is_dir() else cache
    return Access(True, tuple(models) or bundled.NAMES, tuple(data) or DATA, os.access(runs, os.W_OK))


def _short(ref: str) -> str:
    """What was asked for, cut, so that a long one does not fill the page."""
    return repr(ref if len(ref) <= 60 else f"{ref[:57]}…")


ACCESS = decide(os.environ, CACHE)
