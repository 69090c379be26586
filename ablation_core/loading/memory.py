"""How much memory a model's weights need, and whether that much is free; asked before loading, not found out by dying."""

import json
import struct
from pathlib import Path

import psutil
import torch

from ablation_core.errors import ModelError

WORKING_SHARE = 1.15  # activations, buffers and the loader's own copies
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I64": 8, "I32": 4, "I8": 1, "U8": 1}
_MAX_HEADER = 100_000_000  # as the safetensors library has it


def weight_bytes(folder: Path, dtype: torch.dtype) -> int:
    """The bytes of a folder's weights once loaded as `dtype`; 0 where there are none.

    From safetensors headers exactly; for other files their size stands in.
    """
    files = sorted(folder.glob("*.safetensors"))
    if files:
        return sum(_values(file) for file in files) * dtype.itemsize
    if gguf := sorted(folder.glob("*.gguf")):
        return sum(file.stat().st_size for file in gguf) * 2 * dtype.itemsize  # about half a byte a weight
    return sum(file.stat().st_size for file in folder.glob("*.bin"))


def _values(file: Path) -> int:
    with open(file, "rb") as stream:
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else _MAX_HEADER + 1
        if length > min(_MAX_HEADER, file.stat().st_size):
            raise ModelError(f"{file.name} is not a whole safetensors file; download the model again.")
        try:
            header = json.loads(stream.read(length))
        except ValueError as error:
            raise ModelError(f"{file.name} is damaged: its header is not valid JSON.") from error
    spans = (entry["data_offsets"] for name, entry in header.items() if name != "__metadata__")
    kinds = {entry["dtype"] for name, entry in header.items() if name != "__metadata__"}
    size = min((_BYTES.get(kind, 1) for kind in kinds), default=1)
    return sum(end - start for start, end in spans) // size


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
