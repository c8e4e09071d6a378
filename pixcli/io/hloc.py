"""hloc's files: features and matches (HDF5), pairs and queries (text), results.

Features hold a group for each image, of its name, with `keypoints` (n, 2) and maybe `scores`, `descriptors`
and others; matches a group for each pair with `matches0` (n,), the other image's keypoint for each of the
first one's or -1, and maybe `matching_scores0`. In these files the centre of the top-left pixel is (0, 0);
here half a pixel is added, and nowhere else.
"""

import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

import pycolmap

from ..errors import UserError, did_you_mean
from .files import replacing


@dataclass(frozen=True)
class Features:
    """The n keypoints of an image."""

    xy: npt.NDArray[np.float64]
    """(n, 2) COLMAP pixels."""
    scores: npt.NDArray[Any] | None
    """(n,) of the detector, as stored."""
    uncertainty: float | None
    """Standard deviation of xy in pixels, where the detector tells one."""


class FeatureFile:
    """A file of features, open for reading as a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = _open(path, "features", "--features_path")

    def __enter__(self) -> "FeatureFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return _dataset(self._file, name, "keypoints") is not None

    def names(self) -> list[str]:
        """All images that have keypoints, sorted."""
        found: list[str] = []

        def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
            if isinstance(item, h5py.Dataset) and name.endswith("/keypoints"):
                found.append(name.removesuffix("/keypoints"))

        self._file.visititems(visit)
        return sorted(found)

    def read(self, name: str) -> Features:
        """The keypoints of an image, without descriptors; UserError if there are none or they are damaged."""
        keypoints = _dataset(self._file, name, "keypoints")
        if keypoints is None:
            raise UserError(f"{self._path} has no keypoints of {name}: extract its features first")
        scores = _dataset(self._file, name, "scores")
        with _damaged(self._path, f"the features of {name}"):
            xy = keypoints[:, :2].astype(np.float64) + 0.5
            if xy.shape[1:] != (2,):
                raise ValueError(f"keypoints are {keypoints.shape}, not (n, 2)")
            uncertainty = keypoints.attrs.get("uncertainty")
            return Features(
                xy,
                None if scores is None or len(scores) != len(xy) else scores[:],
                None if uncertainty is None else float(uncertainty),
            )

    def read_descriptors(self, name: str) -> npt.NDArray[Any]:
        """(d, n) as stored, a column for each keypoint; UserError if there are none."""
        descriptors = _dataset(self._file, name, "descriptors")
        if descriptors is None:
            raise UserError(f"{self._path} has no descriptors of {name}: extract its features first")
        with _damaged(self._path, f"the descriptors of {name}"):
            return np.asarray(descriptors[:])


class MatchFile:
    """A file of matches, open for reading as a context manager."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = _open(path, "matches", "--matches_path")

    def __enter__(self) -> "MatchFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def pairs(self, names: Iterable[str]) -> list[tuple[str, str]]:
        """All pairs of these images that are in the file, as it orders them."""
        by_key = {name.replace("/", "-"): name for name in names}
        found: list[tuple[str, str]] = []

        def visit(name: str, item: h5py.Dataset | h5py.Group) -> None:
            if not isinstance(item, h5py.Dataset) or not name.endswith("/matches0"):
                return
            key = name.removesuffix("/matches0")
            for gap in re.finditer(r"[/_]", key):
                pair = by_key.get(key[: gap.start()]), by_key.get(key[gap.end() :])
                if pair[0] is not None and pair[1] is not None:
                    found.append((pair[0], pair[1]))
                    return
            raise UserError(f"{self._path}: {key} are no two images that have features")

        self._file.visititems(visit)
        return found

    def read(
        self, name0: str, name1: str
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32] | None] | None:
        """The matches of two images, in whichever order and by whichever of hloc's keys they are stored.

        Returns:
            (m, 2) keypoints of name0 and of name1, and (m,) scores (None where there are none); None if the
            file does not have this pair.
        """
        for key, is_reversed in pair_keys(name0, name1):
            matches0 = _dataset(self._file, key, "matches0")
            if matches0 is None:
                continue
            stored_scores = _dataset(self._file, key, "matching_scores0")
            with _damaged(self._path, f"the matches of {name0} and {name1}"):
                other = matches0[:].astype(np.int64)
                if other.ndim != 1:
                    raise ValueError(f"matches0 is {other.shape}, not (n,)")
                matched = np.flatnonzero(other >= 0)
                matches = np.stack([matched, other[matched]], axis=1)
                scores = None
                if stored_scores is not None:
                    scores = stored_scores[:].astype(np.float32)
                    if scores.shape != other.shape:
                        raise ValueError(f"matching_scores0 is {scores.shape}, matches0 {other.shape}")
                    scores = scores[matched]
            return np.ascontiguousarray(matches[:, ::-1] if is_reversed else matches), scores
        return None


def write_features(path: Path, features: Mapping[str, Features]) -> None:
    """Writes keypoints, with scores where there are any, of images by name."""
    with replacing(path) as temporary, h5py.File(temporary, "w", libver="latest") as file:
        for name, of_image in features.items():
            group = file.require_group(name)
            keypoints = group.create_dataset("keypoints", data=(of_image.xy - 0.5).astype(np.float32))
            if of_image.scores is not None:
                group.create_dataset("scores", data=of_image.scores)
            if of_image.uncertainty is not None:
                keypoints.attrs["uncertainty"] = of_image.uncertainty


def write_matches(
    path: Path, matches: Mapping[tuple[str, str], npt.NDArray[np.integer[Any]]], sizes: Mapping[str, int]
) -> None:
    """Writes matches (m, 2) of pairs of images; `sizes` tells how many keypoints each image has."""
    with replacing(path) as temporary, h5py.File(temporary, "w", libver="latest") as file:
        for pair, rows in matches.items():
            other = np.full(sizes[pair[0]], -1, np.int32)
            other[rows[:, 0]] = rows[:, 1]
            group = file.require_group(pair_key(*pair))
            group.create_dataset("matches0", data=other)
            group.create_dataset("matching_scores0", data=(other >= 0).astype(np.float16))


def write_refined_features(
    input_path: Path, output_path: Path, positions: Mapping[str, npt.NDArray[np.float64]]
) -> None:
    """Writes a copy of a file of features in which keypoints lie elsewhere, with all else that it holds.

    Half precision, in which hloc may store keypoints, cannot tell parts of a pixel: it becomes single.

    Args:
        positions: (n, 2) COLMAP pixels of all keypoints, for each image whose keypoints moved.
    """
    with replacing(output_path) as temporary:
        shutil.copyfile(input_path, temporary)
        with h5py.File(temporary, "r+") as file:
            for name, xy in positions.items():
                keypoints = file[f"{name}/keypoints"]
                rows, attributes = keypoints[:], dict(keypoints.attrs)
                rows = rows.astype(np.promote_types(rows.dtype, np.float32))
                rows[:, :2] = xy - 0.5
                del file[f"{name}/keypoints"]
                file.create_dataset(f"{name}/keypoints", data=rows).attrs.update(attributes)


def pair_key(name0: str, name1: str) -> str:
    """The group of a pair in a file of matches, as hloc writes it."""
    return "/".join(name.replace("/", "-") for name in (name0, name1))


def pair_keys(name0: str, name1: str) -> list[tuple[str, bool]]:
    """The groups that may hold a pair, and whether the images' order is reversed in it; first what to prefer.

    Older versions of hloc joined the names by an underscore.
    """
    names = [name.replace("/", "-") for name in (name0, name1)]
    return [(separator.join(names[::step]), step < 0) for separator in ("/", "_") for step in (1, -1)]


def read_pairs(
    path: Path, first: Collection[str] | None = None, second: Collection[str] | None = None
) -> dict[str, list[str]]:
    """The pairs of a text file, two names a line, as the partners of each first name, in the file's order.

    Names may hold spaces where `first` (and `second`) tell which names there are: a line is split where both
    sides are known, or else where the first one is. Lines of other first names are left out; second names are
    given as they stand.
    """
    known_first, known_second = set(first or ()), set(second or ())
    pairs: dict[str, dict[str, None]] = {}
    for number, line in _lines(path, "pairs"):
        splits = [(line[: gap.start()], line[gap.end() :]) for gap in re.finditer(r"\s+", line)]
        if not splits:
            raise UserError(f"{path}, line {number}: expected two image names, found '{line}'")
        begins = [split for split in splits if split[0] in known_first] if first is not None else splits
        if first is None and len(splits) > 1:
            raise UserError(f"{path}, line {number}: expected two image names without spaces, found '{line}'")
        if begins:
            name, other = next((split for split in begins if split[1] in known_second), begins[-1])
            pairs.setdefault(name, {})[other] = None
    return {name: list(others) for name, others in pairs.items()}


def write_pairs(path: Path, pairs: Iterable[tuple[str, str]]) -> None:
    """Writes pairs of image names, two a line."""
    with replacing(path) as temporary:
        temporary.write_text("".join(f"{a} {b}\n" for a, b in pairs), encoding="utf-8")


def read_queries(path: Path) -> dict[str, pycolmap.Camera | None]:
    """The queries of a list `name model width height parameters`, by name; None for those with a name only.

    Names may hold spaces. Blank lines and lines that start with # do not count.
    """
    models = {name for name in pycolmap.CameraModelId.__members__ if name != "INVALID"}
    queries: dict[str, pycolmap.Camera | None] = {}
    for number, line in _lines(path, "queries"):
        words = [(word.group(), word.start()) for word in re.finditer(r"\S+", line)]
        # The last word that is a model and has numbers behind it: names may hold such words too.
        at = next(
            (k for k in range(len(words) - 1, 0, -1) if words[k][0] in models and _numbers(words[k + 1 :])),
            None,
        )
        where = f"{path}, line {number}"
        name = line if at is None else line[: words[at][1]].rstrip()
        if at is None and len(words) > 2 and _numbers(words[2:]) and words[1][0].isupper():
            raise UserError(
                f"{where}: unknown camera model '{words[1][0]}'. {did_you_mean(words[1][0], models)}"
            )
        if name in queries:
            raise UserError(f"{where}: the query {name} is there twice; leave one out")
        queries[name] = None if at is None else _camera(words[at][0], [w for w, _ in words[at + 1 :]], where)
    if not queries:
        raise UserError(
            f"{path} holds no queries: expected lines of name, camera model, width, height, parameters"
        )
    return queries


def short_names(names: Sequence[str], prepend_camera_name: bool) -> list[str]:
    """What hloc's result file calls queries: the file's name, on request with the folder before it.

    Where two would be called the same, all keep their whole names.
    """
    parts = 2 if prepend_camera_name else 1
    short = ["/".join(name.split("/")[-parts:]) for name in names]
    return short if len(set(short)) == len(set(names)) else list(names)


def write_poses(path: Path, poses: Iterable[tuple[str, pycolmap.Rigid3d]]) -> None:
    """Writes poses as `name qw qx qy qz tx ty tz`, cam_from_world, one a line."""
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for name, cam_from_world in poses:
            x, y, z, w = cam_from_world.rotation.quat.tolist()
            numbers = [w, x, y, z, *cam_from_world.translation.tolist()]
            file.write(" ".join([name, *map(repr, numbers)]) + "\n")


def write_log(path: Path, queries: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Writes an HDF5 group for each query, of its name: arrays as data sets, all else as attributes."""
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        for name, contents in queries:
            group = file.require_group(name)
            for key, value in contents.items():
                if isinstance(value, np.ndarray):
                    group.create_dataset(key, data=value, track_times=False)
                else:
                    group.attrs[key] = value


def _open(path: Path, what: str, option: str) -> h5py.File:
    if not path.is_file():
        raise UserError(f"there is no file of {what} {path}: check {option}")
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        raise UserError(
            f"{path} is no whole HDF5 file of {what}: make it again ({' '.join(str(error).split())})"
        ) from None


def _dataset(file: h5py.File, group: str, name: str) -> h5py.Dataset | None:
    try:
        item = file.get(f"{group}/{name}")
    except (KeyError, RuntimeError, OSError):  # what h5py raises where links are damaged
        return None
    return item if isinstance(item, h5py.Dataset) else None


@contextmanager
def _damaged(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, KeyError, IndexError, ValueError, RuntimeError) as error:
        raise UserError(
            f"{path}: {what} are damaged ({' '.join(str(error).split())}); make them again"
        ) from None


def _lines(path: Path, what: str) -> Iterator[tuple[int, str]]:
    """The lines that are neither blank nor comments, with their numbers from 1."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"the file of {what} {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a text file of {what}") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if (line := line.strip()) and not line.startswith("#"):
            yield number, line


def _numbers(words: Sequence[tuple[str, int]]) -> bool:
    """Whether there are words, and all are numbers."""
    try:
        return len([float(word) for word, _ in words]) > 0
    except ValueError:
        return False


def _camera(model: str, words: Sequence[str], where: str) -> pycolmap.Camera:
    expected = pycolmap.Camera.create_from_model_name(0, model, 1.0, 1, 1).params_info
    try:
        width, height = (int(word) for word in words[:2])
        if width < 1 or height < 1:
            raise ValueError
    except ValueError:
        raise UserError(f"{where}: expected a width and a height in pixels behind {model}") from None
    camera = pycolmap.Camera(model=model, width=width, height=height, params=[float(w) for w in words[2:]])
    if not camera.verify_params():
        raise UserError(f"{where}: {model} takes the parameters {expected}, found {len(words) - 2} numbers")
    focal = np.array(camera.params)[camera.focal_length_idxs()]
    if not np.isfinite(camera.params).all() or np.any(focal <= 0):
        raise UserError(f"{where}: the parameters must be finite, and focal lengths over 0")
    camera.has_prior_focal_length = True
    return camera
