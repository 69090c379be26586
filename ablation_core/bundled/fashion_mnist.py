"""Fashion-MNIST (Xiao et al. 2017, MIT licence): the sample that comes with the project, and the full set where it is.

The files are in the IDX format: a big-endian header (magic number, one size per dimension), then unsigned bytes.
"""

import gzip
from pathlib import Path

import numpy as np

from ablation_core import bundled
from ablation_core.errors import DataError, first_line
from ablation_core.storage import CACHE

CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
SAMPLE_FOLDER = bundled.FOLDER / "fashion-mnist"
SYSTEM_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # Debian's package dataset-fashion-mnist
_PREFIX = {"train": "train", "test": "t10k"}


def full_set(part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (count, 28, 28) and labels (count,), both uint8, of the `train` (60,000) or `test` (10,000) part.

    Raises:
        FileNotFoundError: the set is neither among the system's data sets nor was it downloaded.
    """
    folder = next((folder for folder in (SYSTEM_FOLDER, _downloaded()) if folder.is_dir()), SYSTEM_FOLDER)
    prefix = _PREFIX[part]
    return _read_idx(folder / f"{prefix}-images-idx3-ubyte.gz"), _read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz")


def is_here() -> bool:
    """Whether the full set lies on this machine."""
    return SYSTEM_FOLDER.is_dir() or _downloaded().is_dir()


def download(cache: Path = CACHE) -> Path:
    """Let torchvision download the full set into the cache folder, for people who asked for it.

    Raises:
        DataError: it cannot be had.
    """
    from torchvision.datasets import FashionMNIST

    try:
        for train in (True, False):
            FashionMNIST(str(cache / "data"), train=train, download=True)
    except (OSError, RuntimeError) as error:
        raise DataError(f"Fashion-MNIST cannot be downloaded: {first_line(error)}") from error
    return _downloaded(cache)


def _downloaded(cache: Path = CACHE) -> Path:
    return cache / "data" / "FashionMNIST" / "raw"  # where torchvision puts it


def sample() -> tuple[np.ndarray, np.ndarray]:
    """The first 3,000 test images and their labels, which come with the project."""
    return _read_idx(SAMPLE_FOLDER / "images-idx3-ubyte.gz"), _read_idx(SAMPLE_FOLDER / "labels-idx1-ubyte.gz")


def write_sample(folder: Path = SAMPLE_FOLDER, count: int = 3000) -> None:
    """Cut the sample from the full set (`python -m ablation_core.bundled.fashion_mnist`)."""
    folder.mkdir(exist_ok=True)
    images, labels = full_set("test")
    for name, array in (("images-idx3", images[:count]), ("labels-idx1", labels[:count])):
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        (folder / f"{name}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes(), 9, mtime=0))


def _read_idx(path: Path) -> np.ndarray:
    data = gzip.decompress(path.read_bytes())
    dimensions = data[3]
    shape = np.frombuffer(data, ">u4", count=dimensions, offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


if __name__ == "__main__":
    write_sample()
