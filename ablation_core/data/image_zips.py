"""A zip of images that a person uploads, unpacked into a folder for each class.

An archive is hostile until shown otherwise: declared sizes are not believed, its names never become paths, and every image
is decoded once before it is kept.
"""

import io
import re
import stat
import zipfile
import zlib
from collections import Counter
from pathlib import Path, PurePosixPath

from ablation_core.data.images import eight_bit, opened_image
from ablation_core.data.references import IMAGE_SUFFIXES
from ablation_core.errors import DataError, first_line, shown_name

MAX_UNPACKED_BYTES = 500_000_000
MAX_FILE_BYTES = 25_000_000
MAX_FILES = 10_000
MAX_RATIO = 200  # unpacked to packed bytes of a file; images hardly shrink, a bomb shrinks a thousandfold
MAX_PIXELS = 25_000_000
MAX_PIXELS_TOGETHER = 2_000_000_000  # some minutes of decoding
_IGNORED = re.compile(r"(^|/)(__MACOSX/|\.DS_Store$|Thumbs\.db$|desktop\.ini$)")


def unpack_images(name: str, content: bytes, target: Path) -> int:
    """Write a zip's images as `target/<class>/<number>-<name>` and return how many there are."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = _checked_members(name, archive)
            room, pixels = MAX_UNPACKED_BYTES, 0
            for number, (member, label) in enumerate(members, start=1):
                data = _read_member(archive, member, min(MAX_FILE_BYTES, room))
                room -= len(data)
                pixels += _decode(member.filename, data)
                if pixels > MAX_PIXELS_TOGETHER:
                    raise DataError(
                        f"The images in {shown_name(name)} have too many pixels together; make them smaller."
                    )
                place = target / label / f"{number:05d}-{_file_name(member.filename)}"
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise DataError(
            f"{shown_name(name)} cannot be unpacked: {first_line(error)}. Is it a whole zip file?"
        ) from error
    return len(members)


def _checked_members(name: str, archive: zipfile.ZipFile) -> list[tuple[zipfile.ZipInfo, str]]:
    """The archive's images with the name of each one's class, in the order of their names."""
    infos = [
        info for info in archive.infolist() if not info.filename.endswith("/") and not _IGNORED.search(info.filename)
    ]
    if len(archive.infolist()) > 2 * MAX_FILES or len(infos) > MAX_FILES:
        raise DataError(f"{shown_name(name)} holds more than {MAX_FILES:,} files; upload fewer.")
    if not infos:
        raise DataError(
            f"{shown_name(name)} holds no files; it needs one folder for each class, with its images inside."
        )
    if sum(info.file_size for info in infos) > MAX_UNPACKED_BYTES:
        raise DataError(
            f"{shown_name(name)} unpacks to more than {MAX_UNPACKED_BYTES // 1_000_000} MB; upload fewer images."
        )
    paths = [_checked_path(info) for info in infos]
    depths = {len(path.parts) for path in paths}
    above = {path.parts[:-2] for path in paths}
    if 1 in depths or len(above) > 1 or max(depths) > 3:
        odd = next((path for path in paths if len(path.parts) not in (2, 3)), paths[0])
        raise DataError(
            f"The images in {shown_name(name)} must lie in one folder for each class, as in Dress/1.png; "
            f"found {shown_name(str(odd))}."
        )
    labels = [path.parts[-2] for path in paths]
    if max(Counter(labels).values()) < 2:
        raise DataError(f"{shown_name(name)} holds one image a class; half are evaluated and half give statistics.")
    folded = {label.casefold() for label in labels}
    if len(folded) < len(set(labels)):
        raise DataError(
            f"Two folders of {shown_name(name)} differ only in upper and lower case; give them other names."
        )
    return sorted(zip(infos, labels, strict=True), key=lambda pair: pair[0].filename)


def _checked_path(info: zipfile.ZipInfo) -> PurePosixPath:
    """The name of a member, shown to be harmless as a class and a file name."""
    path, shown = PurePosixPath(info.filename), shown_name(info.filename)
    mode = info.external_attr >> 16
    raw = info.orig_filename  # before zipfile cut it at a NUL
    if info.flag_bits & 0x1:
        raise DataError(f"{shown} is encrypted; upload a zip without a password.")
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        raise DataError(f"{shown} is a link or a special file; a zip of plain images is needed.")
    if path.is_absolute() or ".." in path.parts or "\\" in raw or ":" in raw or "\0" in raw:
        raise DataError(f"{shown} leads out of the archive; a zip with plain names such as Dress/1.png is needed.")
    label = path.parts[-2] if len(path.parts) > 1 else ""
    if len(label.encode()) > 100 or not label.isprintable() or label.startswith(".") or label != label.strip():
        raise DataError(f"{shown} lies in a folder whose name cannot be a class; use short plain names.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise DataError(f"{shown} is packed in an unusual way; use an ordinary zip (stored or deflated).")
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        raise DataError(f"{shown} is no image; the zip may hold {', '.join(sorted(IMAGE_SUFFIXES))} and nothing else.")
    if info.file_size > MAX_FILE_BYTES:
        raise DataError(f"{shown} is larger than {MAX_FILE_BYTES // 1_000_000} MB; make it smaller.")
    if info.file_size > MAX_RATIO * max(info.compress_size, 1) and info.file_size > 1_000_000:
        raise DataError(f"{shown} would unpack to {MAX_RATIO} times its size and more; that is no ordinary image.")
    return path


def _read_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, limit: int) -> bytes:
    """A member's bytes, whatever size it claims to have."""
    with archive.open(member) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise DataError(
            f"{shown_name(member.filename)} unpacks to more than is allowed; upload fewer or smaller images."
        )
    return data


def _decode(filename: str, data: bytes) -> int:
    """Decode an image once, after a look at its size, and return how many pixels it has."""
    with opened_image(io.BytesIO(data), shown_name(filename), MAX_PIXELS) as image:
        eight_bit(image)
        return image.width * image.height


def _file_name(path: str) -> str:
    """The end of a member's name, made safe for any file system."""
    stem, suffix = PurePosixPath(path).stem, PurePosixPath(path).suffix.lower()
    return (re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:40] or "image") + suffix
