"""An explicit mask from a `.npy` file: read only from the pattern's own folder, and checked before use."""

from __future__ import annotations

import os
import stat
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from patterncc.errors import counted, did_you_mean, quote, reason
from patterncc.language.limits import LARGEST_MASK

if TYPE_CHECKING:
    import numpy as np


class MaskError(Exception):
    """A mask file that cannot be used."""

    def __init__(self, message: str, help: str | None = None) -> None:
        super().__init__(message)
        self.message, self.help = message, help


def read_mask(name: str, folder: Path | None) -> np.ndarray:
    """The mask as a read-only bool array [rows, columns] or [heads, rows, columns].

    `name` is relative to `folder`, the folder of the YAML file, and may not lead out of it.
    """
    if folder is None:
        raise MaskError("a mask needs a pattern that is read from a file", "its path is relative to that file's folder")
    path = _inside(name, folder)
    try:
        status = path.stat()
    except FileNotFoundError:
        raise MaskError(f"there is no file {quote(name, 80)}", _meant(path)) from None
    except OSError as error:
        raise _unreadable(name, error) from None
    if not stat.S_ISREG(status.st_mode):
        raise MaskError(f"{quote(name, 80)} is not a file")
    if status.st_size > LARGEST_MASK + 4096:
        raise MaskError(f"the mask is {status.st_size} bytes; the most is {LARGEST_MASK}")
    return _read(os.fspath(path), name, status.st_size, status.st_mtime_ns)


def _meant(path: Path) -> str:
    """A hint at a mask beside the one that is missing, of nearly the same name, else at where it is looked for."""
    try:
        others = [other.name for other in path.parent.glob("*.npy")][:1000]
    except OSError:
        others = []
    close = did_you_mean(path.name, others)
    return f"did you mean {close}?" if close else "it is looked for in the folder of the pattern's file"


def _unreadable(name: str, error: OSError) -> MaskError:
    return MaskError(f"{quote(name, 80)} cannot be read: {reason(error)}")


def _inside(name: str, folder: Path) -> Path:
    """The path of a file below the pattern's folder; MaskError for one that leads out of it."""
    pure = PurePosixPath(name)
    windows = "\\" in name or ":" in name
    if pure.is_absolute() or windows or ".." in pure.parts or any(ord(c) < 32 or ord(c) == 127 for c in name):
        raise MaskError(
            f"{quote(name, 80)} is not a path inside the pattern's folder",
            "give it relative to the YAML file, with / and without ..",
        )
    try:
        root, path = folder.resolve(), (folder / pure).resolve()
    except (OSError, RuntimeError) as error:
        raise MaskError(f"{quote(name, 80)} cannot be followed: {type(error).__name__}") from None
    if root != path and root not in path.parents:
        raise MaskError(
            f"{quote(name, 80)} leads out of the pattern's folder", "symbolic links may not leave it either"
        )
    return path


@lru_cache(maxsize=16)
def _read(path: str, name: str, size: int, changed: int) -> np.ndarray:
    """The mask of a .npy file, bool [rows, columns] or [heads, rows, columns]; MaskError for anything else. The header
    is checked before memory is taken. `size` and `changed` of the file are there for the cache."""
    import numpy as np

    save = "save it with numpy.save(name, array_of_bool)"
    try:
        with open(path, "rb") as file:
            major, _ = np.lib.format.read_magic(file)
            header = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
            shape, _, dtype = header(file)
            start = file.tell()
    except OSError as error:
        raise _unreadable(name, error) from None
    except Exception:
        raise MaskError(f"{quote(name, 80)} is not a .npy file", save) from None
    if dtype != np.bool_:
        raise MaskError(f"the mask holds {dtype if not dtype.hasobject else 'objects'}, not bool", save)
    if len(shape) not in (2, 3) or 0 in shape:
        raise MaskError(
            f"the mask has shape {list(shape)}", "it must be [rows, columns] or [heads, rows, columns], none of them 0"
        )
    count = 1
    for length in shape:
        count *= int(length)
    if count > LARGEST_MASK:
        raise MaskError(f"the mask has {count} entries; the most is {LARGEST_MASK}")
    if size - start != count:
        raise MaskError(
            f"the mask file holds {size - start} of {counted(count, 'entry', 'entries')}",
            "it is cut off, or has a tail",
        )
    try:
        array = np.load(path, allow_pickle=False)
    except Exception:
        raise MaskError(f"{quote(name, 80)} cannot be read", save) from None
    mask = np.ascontiguousarray(array.view(np.uint8) != 0)  # any byte that is not 0 is true: as numpy prints it
    mask.setflags(write=False)
    return mask
