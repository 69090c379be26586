"""The statistics half of the page Models and data: what there is, its provenance; export, import, compute, delete."""

from collections.abc import Collection
from functools import partial

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from ablation_core import bundled
from ablation_core.activations import files
from ablation_core.activations.collect import compute_statistics
from ablation_core.activations.files import CacheEntry
from ablation_core.activations.made_from import BINNINGS, FINE_BINS, Binning
from ablation_core.data import uploads
from ablation_core.data.references import DEFAULT_DATA, IMAGE_NAMES, STATISTICS_PREDICTIONS, TEXT_NAMES
from ablation_core.errors import AblationError, as_markdown
from ablation_core.loading.packaged import PACKAGED, fetched_folder
from ablation_core.server import access, inventory
from ablation_core.ui.runs.expected import say, seconds_of_statistics
from ablation_core.ui.shared import find_shared_statistics, is_loaded, shared_data, shared_model
from ablation_core.ui.widgets import confirmed_delete, file_box, megabytes, page_link, run_action, show_outcome

_BINNING_WORDS = {"robust": "outliers clipped", "min-max": "full range"}
FINE = (300, FINE_BINS, 1200)


def show_statistics() -> None:
    """The statistics files, and what can be done with them."""
    st.subheader("Statistics", anchor=False)
    st.markdown(
        "Every neuron's distribution, mean, median and peak: computed once for a model and a data set, then saved."
    )
    entries, problems = files.list_statistics()
    if access.ACCESS.shared:  # the others are the operator's own business, and so are damaged files with their paths
        entries, problems = [entry for entry in entries if is_offered(entry)], []
    for problem in problems:
        st.warning(as_markdown(problem), icon="⚠️")
    rows = [
        {
            "model": entry.provenance["model"],
            "data": uploads.named(entry.provenance["data"]),
            "positions": f"{entry.provenance['tokens']:,}",
            "size": megabytes(entry.bytes),
            "from": "bundled" if inventory.is_bundled(entry) else "computed or imported here",
            "bins": f"{entry.provenance['bins']} bins, {_BINNING_WORDS.get(entry.provenance['binning'], entry.provenance['binning'])}",
            "digest": entry.digest,
        }
        for entry in entries
    ]
    st.dataframe(rows, hide_index=True, width="stretch", row_height=35, height=35 * (len(rows) + 1) + 2)
    if entries:
        names = {
            f"{e.provenance['model']} on {uploads.named(e.provenance['data'])}, {e.provenance['tokens']:,} positions ({e.path.stem})": e
            for e in entries
        }
        name = st.selectbox(
            "Statistics file", list(names), key="statistics", help="To see its provenance, to export or to delete it."
        )
        one_entry(name, names[name])
    show_outcome("delete file")


def is_offered(entry: CacheEntry) -> bool:
    return entry.provenance["model"] in access.ACCESS.models and entry.provenance["data"] in access.ACCESS.data


def one_entry(name: str, entry: CacheEntry) -> None:
    """One statistics file: open, export, delete, provenance."""
    made = entry.provenance
    with st.container(horizontal=True):
        kind = "images" if made["data"].startswith(("images:", *IMAGE_NAMES)) else "text"
        page_link("pages/distributions.py", "Show its distributions", {"model": made["model"], kind: made["data"]})
        st.download_button(
            "Export", entry.path.read_bytes, entry.path.name, "application/octet-stream", on_click="ignore",
            key="export", help="The file itself (safetensors): import it on another machine.",
        )  # fmt: skip
        again, ours = False, inventory.is_bundled(entry)
        if not access.ACCESS.shared:
            again = st.button(
                "Compute again",
                help="With the same bins and the usual number of positions; reports whether the numbers are identical.",
            )
            confirmed_delete(
                "file", name, lambda: inventory.delete_statistics(entry.path), disabled=ours,
                why="Statistics that come with the project cannot be deleted." if ours else "",
            )  # fmt: skip
    if again:
        settings = (made["model"], made["data"], made["bins"], made["binning"], made["positions_left_out"] == 0)
        run_action(partial(compute, *settings), "compute again")
    show_outcome("compute again")
    with st.expander("Provenance"):
        st.table({"value": {key: str(value) for key, value in {**made, "digest": entry.digest}.items()}})


def import_form() -> None:
    """Statistics from another machine."""
    file_box(
        "Import a statistics file",
        "import",
        import_file,
        inventory.MAX_STATISTICS_BYTES,
        "A file exported or computed by this app elsewhere. It is verified number by number against its digest; nothing "
        "in it is executed.",
        type="safetensors",
    )


def compute_form() -> None:
    """Compute statistics, or compute them again."""
    st.subheader("Compute statistics", anchor=False)
    here = [*bundled.NAMES, *(name for name in PACKAGED if fetched_folder(name))]
    left, right = st.columns(2, gap="large")
    ref = left.selectbox("Of the model", here, key="of", accept_new_options=True, help="Any model reference.")
    names = (*TEXT_NAMES, *IMAGE_NAMES, *uploads.references("text"), *uploads.references("images"))
    usual = DEFAULT_DATA["vision" if ref == "vit-mini" else "causal"]
    data_ref = right.selectbox(
        "On the data", names, index=names.index(usual), key=f"on {usual}", accept_new_options=True,
        help="The statistics part is used, which no evaluation sees.",
    )  # fmt: skip
    with st.expander("Settings"):
        bins = st.select_slider(
            "Fine bins", FINE, value=FINE_BINS, help="Of each neuron's histogram; coarser bins are sums of these."
        )
        binning = st.radio(
            "Range of the bins", BINNINGS, horizontal=True,
            help="robust: outliers are clipped. min-max: from the smallest to the largest value, as in the paper; needs a "
            "second pass over the data.",
        )  # fmt: skip
        keep_first = st.toggle("Include the first position (BOS, CLS)", help="By default it is excluded.")
    with st.container(horizontal=True, vertical_alignment="center"):
        begun = st.button("Compute statistics", type="primary", help="Any change on this page stops it.")
        if not begun:
            say(_expected(ref, data_ref, names, binning))
    if begun:
        run_action(lambda: compute(ref, data_ref, bins, binning, keep_first), "compute")
    show_outcome("compute")


def _expected(ref: str, data_ref: str, local: Collection[str], binning: Binning) -> float | None:
    """How long it takes, where that is known without loading or fetching anything."""
    if not is_loaded(ref) or data_ref not in local:
        return None
    try:
        model = shared_model(ref)
        data = shared_data(model, data_ref, STATISTICS_PREDICTIONS[model.modality], "statistics")
        return seconds_of_statistics(model, data, 1 if binning == "robust" else 2)
    except AblationError:
        return None  # said when it is asked for


def compute(ref: str, data_ref: str, bins: int, binning: Binning, keep_first: bool) -> str:
    """Compute and save statistics; returns a sentence about the outcome, and whether these numbers were there already."""
    bar = st.progress(0.0, "Loading the model …")

    def progress(done: int, steps: int) -> None:
        bar.progress(done / steps, f"{done} of {steps} batches")

    model = shared_model(ref)
    if (here := find_shared_statistics(model, data_ref)) is None or not inventory.is_bundled(here):
        files.check_can_save(model)  # better now than after the work
    data = shared_data(model, data_ref, STATISTICS_PREDICTIONS[model.modality], "statistics")
    excluded_positions = 0 if keep_first else model.excluded_positions
    statistics = compute_statistics(
        model, data, bins=bins, positions_left_out=excluded_positions, binning=binning, progress=progress
    )
    path = files.statistics_path(statistics)
    before = next((entry for entry in files.list_statistics()[0] if entry.path == path), None)
    made = f"Statistics of {ref} on {data_ref}, {statistics.provenance['tokens']:,} positions"
    if before is not None and before.digest == statistics.digest:
        return f"{made}: the same numbers as before, digest {statistics.digest}."
    if before is not None and inventory.is_bundled(before):
        return (
            f"{made}, computed here: digest {statistics.digest}; the bundled file has {before.digest}. They differ by "
            f"rounding between machines; the bundled file stays."
        )
    files.save_statistics(statistics)
    return f"{made}: saved, digest {statistics.digest}."


def import_file(file: UploadedFile) -> str:
    path = inventory.import_statistics(file.getvalue())
    return f"Imported as {path.parent.name}/{path.name}."
