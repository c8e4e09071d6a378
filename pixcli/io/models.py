"""COLMAP models in and out: folders with cameras, rigs, frames, images and points."""

import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pycolmap

from pixcli.errors import UserError
from pixcli.io.files import replacing, sync

_FILES = ("cameras", "frames", "images", "points3D", "rigs")


def read_model(path: Path) -> pycolmap.Reconstruction:
    """A model from its folder, binary files first, text files else; with images, points and finite numbers.

    Raises:
        UserError: there is no such model, or it cannot be refined; names the file, image or point.
    """
    if not path.is_dir():
        raise UserError(f"there is no folder {path}: check --input_path")
    kind = next((kind for kind in ("bin", "txt") if (path / f"images.{kind}").is_file()), None)
    if kind is None:
        raise UserError(f"{path} is no COLMAP model: it has neither images.bin nor images.txt")
    needed = [f"{name}.{kind}" for name in ("cameras", "points3D")]
    missing = [name for name in needed if not (path / name).is_file()]
    if missing:
        raise UserError(f"{path} is no complete COLMAP model: {', '.join(missing)} is missing")
    if kind == "bin" and not _is_whole(path / "points3D.bin"):
        raise UserError(f"{path} is damaged: points3D.bin is truncated; copy it again, or map again")
    model = pycolmap.Reconstruction()
    try:
        (model.read_binary if kind == "bin" else model.read_text)(str(path))
    except Exception as error:  # pycolmap raises what its parser stumbled over, of any type
        raise UserError(f"{path} is damaged: its .{kind} files cannot be read ({_one_line(error)})") from None
    _check(model, path)
    return model


@contextmanager
def writing_model(path: Path) -> Iterator[Path]:
    """Give a folder to write a model into; its files take their places in `path` when the with-block ends.

    If the block raises, what was there before is still there, unchanged.
    """
    folder = path.parent
    if not folder.is_dir():
        raise UserError(f"{path} cannot be written: there is no folder {folder}; make it first")
    try:
        with tempfile.TemporaryDirectory(prefix=".pixcli-", dir=folder) as temporary:
            yield Path(temporary)
            files = sorted(Path(temporary).iterdir())
            for file in files:
                sync(file)
            path.mkdir(exist_ok=True)
            for file in files:
                file.replace(path / file.name)
        sync(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error


def check_model_output(
    input_path: Path,
    output_path: Path,
    overwrite: bool,
    option: str = "FeaturemetricBundleAdjustment.overwrite",
) -> None:
    """Raises UserError unless a model may be written here: over another one only if `option` is set."""
    if output_path.exists() and not output_path.is_dir():
        raise UserError(f"{output_path} is no folder: name another --output_path")
    if not output_path.parent.is_dir():
        raise UserError(
            f"{output_path} cannot be written: there is no folder {output_path.parent}; make it first"
        )
    if not os.access(output_path if output_path.is_dir() else output_path.parent, os.W_OK):
        raise UserError(f"{output_path} cannot be written: the folder is read-only")
    if overwrite or not output_path.is_dir():
        return
    if any((output_path / f"{name}.{kind}").exists() for name in _FILES for kind in ("bin", "txt")):
        same = output_path.resolve() == input_path.resolve()
        what = "is the input" if same else "holds a model already"
        raise UserError(f"--output_path {output_path} {what}: name another folder, or set --{option} 1")


def write_point_normals(
    path: Path,
    model: pycolmap.Reconstruction,
    point_ids: npt.NDArray[np.int64],
    normals: npt.NDArray[np.float64],
) -> None:
    """Write the points that have a normal, with it and their colour, as a binary PLY file.

    Args:
        point_ids, normals: (p,) and (p, 3) unit vectors of the world; NaN where a point has none.
    """
    known = np.isfinite(normals).all(1)
    points = [model.points3D[point_id] for point_id in point_ids[known].tolist()]
    names = ("x", "y", "z", "nx", "ny", "nz")
    vertices = np.zeros(
        len(points), [(name, "<f4") for name in names] + [(name, "u1") for name in ("red", "green", "blue")]
    )
    if points:
        values = np.c_[np.array([point.xyz for point in points]), normals[known]]
        for name, column in zip(names, values.T, strict=True):
            vertices[name] = column
        for name, column in zip(
            ("red", "green", "blue"), np.array([point.color for point in points]).T, strict=True
        ):
            vertices[name] = column
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    lines += [f"property float {name}" for name in names]
    lines += [f"property uchar {name}" for name in ("red", "green", "blue")]
    with replacing(path) as temporary:
        temporary.write_bytes("\n".join([*lines, "end_header", ""]).encode() + vertices.tobytes())


def _is_whole(points: Path) -> bool:
    """Whether a points3D.bin ends where its last point does.

    Of a truncated file COLMAP's reader takes garbage for the length of a track, and minutes to allocate it. A
    point is an id, position, colour and error in 43 bytes, then a count of 8-byte track elements.
    """
    data = points.read_bytes()
    if len(data) < 8:
        return False
    (count,) = struct.unpack_from("<Q", data)
    end = 8
    for _ in range(count):
        if end + 51 > len(data):
            return False
        (length,) = struct.unpack_from("<Q", data, end + 43)
        end += 51 + 8 * length
    return end == len(data)


def _check(model: pycolmap.Reconstruction, path: Path) -> None:
    if model.num_reg_images() == 0:
        raise UserError(f"{path} has no registered images: there is nothing to refine")
    if model.num_points3D() == 0:
        raise UserError(f"{path} has no 3D points: triangulate it first, with colmap point_triangulator")
    for image in model.images.values():
        if image.has_pose and not np.isfinite(image.cam_from_world().matrix()).all():
            raise UserError(f"{path}: the pose of image {image.name} is not finite; map this model again")
    for camera in model.cameras.values():
        if not np.isfinite(camera.params).all():
            raise UserError(f"{path}: the parameters of camera {camera.camera_id} are not finite")
    for point_id, point in model.points3D.items():
        if not np.isfinite(point.xyz).all():
            raise UserError(f"{path}: point {point_id} is not finite; delete it, or triangulate again")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
