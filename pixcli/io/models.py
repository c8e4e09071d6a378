"""COLMAP models in and out: folders with cameras, rigs, frames, images and points."""

import os
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pixcli.errors import UserError
from pixcli.io.files import replacing
from pixcli.system import sync

import pycolmap

_FILES = ("cameras", "frames", "images", "points3D", "rigs")
_MARGIN = 1.0  # pixels; detectors place keypoints slightly beyond the border of an image


def read_model(
    path: Path, *, option: str = "--input_path", needs_points: bool = True
) -> pycolmap.Reconstruction:
    """A model from its folder, binary files first, text files else; with images, points and finite numbers.

    Args:
        option: what named the folder.
        needs_points: whether a model of cameras and poses alone is refused.

    Raises:
        UserError: there is no such model, or it cannot be refined; names the file, image or point.
    """
    if not path.is_dir():
        raise UserError(f"there is no folder {path}: check {option}")
    kind = next((kind for kind in ("bin", "txt") if (path / f"images.{kind}").is_file()), None)
    if kind is None:
        raise UserError(f"{path} is no COLMAP model: it has neither images.bin nor images.txt")
    needed = [f"{name}.{kind}" for name in (("cameras", "points3D") if needs_points else ("cameras",))]
    missing = [name for name in needed if not (path / name).is_file()]
    if missing:
        raise UserError(f"{path} is no complete COLMAP model: {', '.join(missing)} is missing")
    if kind == "bin" and (path / "points3D.bin").is_file() and not _is_whole(path / "points3D.bin"):
        raise UserError(f"{path} is damaged: points3D.bin is truncated; copy it again, or map again")
    model = pycolmap.Reconstruction()
    try:
        (model.read_binary if kind == "bin" else model.read_text)(str(path))
    except Exception as error:  # pycolmap raises what its parser stumbled over, of any type
        raise UserError(f"{path} is damaged: its .{kind} files cannot be read ({_one_line(error)})") from None
    _check(model, path, needs_points)
    return model


@contextmanager
def writing_model(path: Path) -> Iterator[Path]:
    """Give a folder to write a model into; its files take their places in `path` when the with-block ends.

    A model that was there, in files of either type, goes; other files stay. If the block raises, or is
    interrupted up to its very end, the old model is still there, unchanged. If the process is killed in the
    instant in which files are exchanged, the folder holds a part of one model, which no reader accepts, but
    never parts of two.
    """
    folder = path.parent
    if not folder.is_dir():
        raise UserError(f"{path} cannot be written: there is no folder {folder}; make it first")
    try:
        with tempfile.TemporaryDirectory(prefix=".pixcli-", dir=folder) as temporary:
            new, old = Path(temporary) / "new", Path(temporary) / "old"
            new.mkdir()
            old.mkdir()
            yield new
            for file in sorted(new.iterdir()):
                sync(file)
            path.mkdir(exist_ok=True)
            _exchange(new, path, old)
        sync(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror or error}") from error


def write_model(folder: Path, model: pycolmap.Reconstruction, kind: str) -> None:
    """Write the five files of a model, `bin` or `txt`, into a folder that exists."""
    check_model_type(model, kind)
    (model.write_binary if kind == "bin" else model.write_text)(str(folder))


def check_model_type(model: pycolmap.Reconstruction, kind: str) -> None:
    """Raises UserError if files of this type, `bin` or `txt`, cannot hold the model."""
    if kind == "txt":
        for image in model.images.values():
            if any(letter.isspace() for letter in image.name):
                raise UserError(
                    f"text files cannot hold the name of image {image.name!r}, which has a space: set "
                    "--output_type bin"
                )


def _exchange(new: Path, path: Path, old: Path) -> None:
    """Move all files of a model in `path` to `old`, then those in `new` to `path`; all or nothing."""
    moves = [(file, old / file.name) for file in _model_files(path)]
    moves += [(file, path / file.name) for file in sorted(new.iterdir())]
    done = []
    try:
        for source, target in moves:
            done.append((source, target))
            source.rename(target)
    except BaseException:
        for source, target in reversed(done):
            if target.exists() and not source.exists():
                target.rename(source)
        raise


def _model_files(path: Path) -> list[Path]:
    names = [path / f"{name}.{kind}" for name in _FILES for kind in ("bin", "txt")]
    return [file for file in names if file.exists()]


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
    if _model_files(output_path):
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


def _check(model: pycolmap.Reconstruction, path: Path, needs_points: bool) -> None:
    if model.num_reg_images() == 0:
        raise UserError(f"{path} has no registered images: there is nothing to refine")
    if needs_points and model.num_points3D() == 0:
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
    _check_tracks(model, path)


def _check_tracks(model: pycolmap.Reconstruction, path: Path) -> None:
    """Points and images must name each other, and observations lie in their images."""
    seen: list[npt.NDArray[np.int64]] = [np.empty((0, 3), np.int64)]  # image, row, point
    for image_id, image in model.images.items():
        points2D = image.get_observation_points2D()
        rows = np.array(image.get_observation_point2D_idxs(), np.int64)
        ids = np.array([point.point3D_id for point in points2D], np.int64)
        seen.append(np.stack([np.full(len(rows), image_id), rows, ids], 1))
        xy = np.array([point.xy for point in points2D]).reshape(-1, 2)
        size = image.camera.width, image.camera.height
        outside = ~((xy >= -_MARGIN) & (xy <= np.add(size, _MARGIN))).all(1)
        if outside.any():
            k = int(np.argmax(outside))
            raise UserError(
                f"{path}: 2D point {rows[k]} of image {image.name} lies at ({xy[k, 0]:g}, {xy[k, 1]:g}), "
                f"outside of its {size[0]}x{size[1]} pixels: the camera is not that of the image"
            )
    elements = [
        (element.image_id, element.point2D_idx, point_id)
        for point_id, point in model.points3D.items()
        for element in point.track.elements
    ]
    observed, tracked = np.concatenate(seen), np.array(elements, np.int64).reshape(-1, 3)
    observed = observed[np.argsort(_keys(observed))]
    place = np.searchsorted(_keys(observed), _keys(tracked)).clip(0, max(len(observed) - 1, 0))
    unknown = (observed[place] != tracked).any(1) if len(observed) else np.ones(len(tracked), bool)
    if unknown.any():
        image_id, row, point_id = tracked[np.argmax(unknown)].tolist()
        raise UserError(
            f"{path} is inconsistent: point {point_id} is observed as row {row} of image {image_id}, which "
            "knows nothing of it; map again"
        )
    if len(observed) != len(tracked):
        raise UserError(
            f"{path} is inconsistent: its images have {len(observed)} observations, its points "
            f"{len(tracked)}; map again"
        )


def _keys(observations: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """(n,) a number for each image and row, of (n, 3) image, row and point."""
    return (observations[:, 0] << 32) | observations[:, 1]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
