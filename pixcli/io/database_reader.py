"""A COLMAP database, read image by image: memory does not grow with what it holds."""

import tempfile
from collections import defaultdict
from contextlib import ExitStack, closing
from functools import cached_property
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

import pycolmap

from ..errors import UserError
from .database import copy_tables, decode_errors, has_table, open_input


class DatabaseReader:
    """Images, keypoints and verified matches of a database; a context manager, for one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack = ExitStack()
        with self._stack as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pixcli-")))
            tables = ["cameras", "images", "keypoints", "two_view_geometries"]
            with closing(open_input(path)) as source:
                tables += [
                    name
                    for name in ("rigs", "rig_sensors", "frames", "frame_data")
                    if has_table(source, name)
                ]
                private = copy_tables(source, path, folder, tables)
            with decode_errors(path):
                self._database = stack.enter_context(pycolmap.Database.open(private))
                self.cameras: dict[int, pycolmap.Camera] = {
                    camera.camera_id: camera for camera in self._database.read_all_cameras()
                }
                """By id."""
                self.images: dict[int, pycolmap.Image] = {
                    image.image_id: image for image in self._database.read_all_images()
                }
                """By id; without keypoints."""
                self._partners: dict[int, list[int]] = defaultdict(list)
                for pair_id, count in zip(*self._database.read_two_view_geometry_num_inliers(), strict=True):
                    first, second = pycolmap.pair_id_to_image_pair(pair_id)
                    if count > 0:
                        self._partners[first].append(second)
                        self._partners[second].append(first)
            for image in self.images.values():
                if image.camera_id not in self.cameras:
                    raise UserError(
                        f"{path}: image {image.name} has camera {image.camera_id}, which does not exist"
                    )
            self._stack = stack.pop_all()

    def __enter__(self) -> "DatabaseReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def keypoints(self, image_id: int) -> npt.NDArray[np.float64]:
        """(n, 2) of an image, in COLMAP pixels."""
        with decode_errors(self._path):
            rows = self._database.read_keypoints(image_id)
        return np.asarray(rows[:, :2], np.float64).reshape(-1, 2)

    def partners(self, image_id: int) -> list[int]:
        """The images with which this one has verified matches, ascending."""
        return sorted(self._partners.get(image_id, ()))

    def matches(self, image_id: int, other_id: int) -> npt.NDArray[np.int64]:
        """(m, 2) verified matches: keypoints of the one, keypoints of the other."""
        with decode_errors(self._path):
            return np.asarray(
                self._database.read_two_view_geometry(image_id, other_id).inlier_matches, np.int64
            )

    @cached_property
    def rigs(self) -> dict[int, pycolmap.Rig]:
        """By id; empty where the database is older than rigs."""
        with decode_errors(self._path):
            return {rig.rig_id: rig for rig in self._database.read_all_rigs()}

    @cached_property
    def frames(self) -> dict[int, pycolmap.Frame]:
        """By id; empty where the database is older than rigs."""
        with decode_errors(self._path):
            return {frame.frame_id: frame for frame in self._database.read_all_frames()}
