"""The images of a folder."""

import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from pixcli.errors import UserError
from pixcli.io.images import check_image
from pixcli.progress import Update

log = logging.getLogger(__name__)

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".webp", ".jp2"}

_NAMED = 10
"""So many images that cannot be read are named beside the first."""


def find_images(folder: Path) -> list[str]:
    """Names of all images in a folder and below it, relative to it, sorted.

    Raises:
        UserError: there are none, or two differ in their format only.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: check --image_path")
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.suffix.lower() in _SUFFIXES and path.is_file()
    )
    if not names:
        kinds = ", ".join(sorted(suffix[1:] for suffix in _SUFFIXES))
        raise UserError(f"{folder} holds no images ({kinds}): check --image_path")
    by_stem = defaultdict(list)
    for name in names:
        by_stem[PurePosixPath(name).with_suffix("")].append(name)
    if twins := next((twins for twins in by_stem.values() if len(twins) > 1), None):
        raise UserError(
            f"{folder} holds {' and '.join(twins)}, one image in {len(twins)} formats: leave one of them"
        )
    return names


def readable_images(folder: Path, names: Sequence[str], skip: bool, update: Update) -> list[str]:
    """Those images that can be decoded; without `skip`, all must.

    Raises:
        UserError: names the first image that cannot be read, and says how many others there are.
    """

    def fault(name: str) -> str:
        try:
            check_image(folder / name)
        except UserError as error:
            return str(error)
        return ""

    faults = {}
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        for done, (name, message) in enumerate(zip(names, executor.map(fault, names), strict=True), start=1):
            if message:
                faults[name] = message
            update(done)
    if faults and not skip:
        others = list(faults)[1 : _NAMED + 1]
        more = f" and {len(faults) - 1 - _NAMED} more" if len(faults) > 1 + _NAMED else ""
        raise UserError(
            f"{next(iter(faults.values()))}, or leave it out by --Reconstruction.skip_unreadable_images 1."
            + (f" So it is with {', '.join(others)}{more}." if others else "")
        )
    for message in faults.values():
        log.warning("left out: %s", message)
    kept = [name for name in names if name not in faults]
    if not kept:
        raise UserError(f"none of the {len(names)} images of {folder} can be read")
    return kept
