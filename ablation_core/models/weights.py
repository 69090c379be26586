"""A module's weights in a few characters: a digest of every byte, and quick sums that show an edit."""

import hashlib
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn


def weights_digest(module: nn.Module) -> str:
    """A digest of every weight of a module: its name, shape, type and bytes."""
    digest = hashlib.sha256()
    for name, part in sorted(module.named_modules()):
        with _weights_here(part):
            for key, tensor in sorted(_own_weights(part).items()):
                digest.update(f"{name}.{key} {tuple(tensor.shape)} {tensor.dtype}".encode())
                digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


@torch.no_grad()
def weight_sums(module: nn.Module) -> bytes:
    """A digest of sums over every weight, in which an edit or an exchange of any of them shows.

    Each row is multiplied with fixed numbers and added up: one pass over the weights, where they are. Weights that
    accelerate keeps elsewhere are left out, as nobody edits them there.
    """
    parts: list[Tensor] = []
    numbers: dict[tuple, Tensor] = {}  # by length, type and device: many weights share them
    for _, part in sorted(module.named_modules()):
        for _, tensor in sorted(_own_weights(part).items()):
            if tensor.device.type == "meta" or not tensor.numel():
                continue
            rows = tensor.detach().reshape(-1, tensor.shape[-1] if tensor.ndim > 1 else min(tensor.numel(), 1))
            if not rows.is_floating_point() or rows.dtype.itemsize < 4:
                rows = rows.float()
            kind = rows.shape[1], rows.dtype, rows.device
            if kind not in numbers:
                steps = torch.arange(rows.shape[1], device=rows.device, dtype=rows.dtype)
                numbers[kind] = 1 + steps.mul_(0.618034).frac_()
            parts.append((rows @ numbers[kind]).double().cpu())
    return hashlib.sha256(torch.cat(parts).numpy().tobytes()).digest() if parts else b""


def _own_weights(module: nn.Module) -> dict[str, Tensor]:
    """A module's own parameters and those buffers that are saved with it."""
    buffers = {
        key: t for key, t in module.named_buffers(recurse=False) if key not in module._non_persistent_buffers_set
    }
    return dict(module.named_parameters(recurse=False)) | buffers


def _weights_here(module: nn.Module) -> AbstractContextManager:
    """Weights that accelerate keeps elsewhere (on disk, say) are brought here for a `with` block."""
    if not hasattr(module, "_hf_hook"):
        return nullcontext()
    from accelerate.utils import align_module_device

    return align_module_device(module, torch.device("cpu"))
