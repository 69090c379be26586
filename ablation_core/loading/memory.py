"""How much memory a model's weights need, and whether that much is free; asked before loading, not found out by dying."""

import json
import struct
from pathlib import Path
from typing import Any

import psutil
import torch

from ablation_core.errors import ModelError

WORKING_SHARE = 1.15  # activations, buffers and the loader's own copies
# bytes per value of the types that are loaded as the type asked for; others stay as they are
_FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1}
_MAX_HEADER = 100_000_000  # as the safetensors library has it


def weight_bytes(folder: Path, dtype: torch.dtype) -> int:
    """The bytes of a folder's weights once loaded as `dtype`; 0 where there are none.

    From safetensors headers exactly: floating-point weights as `dtype`, whole numbers and flags as they are, and only of
    the files that are loaded; for other files their size stands in.
    """
    if files := _loaded_files(folder):
        return sum(_bytes_of(file, dtype) for file in files)
    if gguf := sorted(folder.glob("*.gguf")):
        return sum(file.stat().st_size for file in gguf) * 2 * dtype.itemsize  # about half a byte a weight
    return sum(file.stat().st_size for file in folder.glob("*.bin"))


def _loaded_files(folder: Path) -> list[Path]:
    """The safetensors files that a model is loaded from: a folder may hold second copies under other names."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file():
        return [whole]
    if index.is_file():
        try:
            names = {Path(str(name)).name for name in json.loads(index.read_text("utf-8"))["weight_map"].values()}
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ModelError(f"{index.name} is damaged: it does not say which file holds which weight.") from error
        return [folder / name for name in sorted(names) if (folder / name).is_file()]
    return sorted(folder.glob("*.safetensors"))


def stored_types(folder: Path) -> dict[str, str]:
    """The type of each weight in a folder's safetensors files, as these call it."""
    headers = [_header(file) for file in _loaded_files(folder)]
    return {name: str(entry["dtype"]) for header in headers for name, entry in header.items() if name != "__metadata__"}


def _header(file: Path) -> dict[str, Any]:
    with open(file, "rb") as stream:
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else _MAX_HEADER + 1
        if length > min(_MAX_HEADER, file.stat().st_size):
            raise ModelError(f"{file.name} is not a whole safetensors file; download the model again.")
        try:
            header: dict[str, Any] = json.loads(stream.read(length))
        except ValueError as error:
            raise ModelError(f"{file.name} is damaged: its header is not valid JSON.") from error
    return header


def _bytes_of(file: Path, dtype: torch.dtype) -> int:
    header, total = _header(file), 0
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    with open(file, "rb") as stream:
        whole = 8 + struct.unpack("<Q", stream.read(8))[0] + max(ends, default=0)
    if file.stat().st_size != whole:
        raise ModelError(
            f"{file.name} is not a whole safetensors file: it has {file.stat().st_size:,} bytes, and its header describes "
            f"{whole:,}; download the model again."
        )
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            stored = _FLOATS.get(entry["dtype"])
            total += (end - begin) // stored * dtype.itemsize if stored else end - begin
    return total


def check_fits(ref: str, needed: int, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse a model whose weights do not fit into what is free.

    Raises:
        ModelError: with both figures, and what would fit.
    """
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    needed = int(needed * WORKING_SHARE)
    if needed <= free:
        return
    advice = "Choose a smaller model"
    if dtype.itemsize == 4 and needed / 2 <= free:
        advice = "It would fit with --dtype bfloat16"
    raise ModelError(
        f"{ref} needs about {needed / 1e9:.1f} GB of memory as {str(dtype).removeprefix('torch.')}, and "
        f"{free / 1e9:.1f} GB are free on {device}. {advice}."
    )
