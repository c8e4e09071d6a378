"""Accuracy and completeness of a point cloud against laser scans, by ETH3D's definition, on NumPy alone.

Completeness: the share of the scans' points with a reconstructed point within the tolerance. Accuracy: of
the reconstructed points that can be judged, the share within the tolerance of a scan's point. One that is
farther away counts as wrong where a laser beam passed through the place, and not at all where no beam did
(behind what a scan saw, or beside it). Both are averaged in voxels first, so that dense places count no more
than others, over two grids that are half a voxel apart (Schops et al., "A multi-view stereo benchmark with
high-resolution images and multi-camera videos", CVPR 2017). What differs from ETH3D's program: a beam also
stands for what lies between it and the next, so that scans may be sparser than beams are wide.

usage: multi_view_evaluation.py MODEL SCAN_ALIGNMENT.mlp [--tolerances 0.01,0.02,0.05]
"""

import argparse
import json
import subprocess
import tempfile
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pixcli.errors import UserError

import pycolmap

Array = NDArray[np.float64]

TOLERANCES = (0.01, 0.02, 0.05)
VOXEL = 0.01
"""Side of a voxel, in metres."""
BEAM_RADIUS, BEAM_DIVERGENCE = 0.5 * 0.00225, np.radians(0.011)
"""Of a laser beam where it starts, in metres, and half the angle at which it widens."""
SPACING = 1.5
"""A beam stands for what is around it up to so many times the angle to the next: scans are resampled."""


@dataclass(frozen=True)
class Scan:
    """What a scanner at `origin` has hit."""

    points: Array
    """(n, 3) in the world."""
    origin: Array


@dataclass(frozen=True)
class Scores:
    """Shares from 0 to 1, for each tolerance."""

    accuracy: dict[float, float]
    completeness: dict[float, float]


def evaluate(points: Array, scans: list[Scan], tolerances: tuple[float, ...] = TOLERANCES) -> Scores:
    """Scores of reconstructed points (n, 3), in the scans' world."""
    truth = np.concatenate([scan.points for scan in scans])
    to_truth = cKDTree(truth).query(points)[0]
    to_points = cKDTree(points).query(truth)[0]
    depths = [_depth_difference(points, scan) for scan in scans]
    accuracy, completeness = {}, {}
    for tolerance in tolerances:
        right = to_truth <= tolerance
        in_free_space = np.any([depth < -tolerance for depth in depths], axis=0)
        judged = right | in_free_space
        accuracy[tolerance] = _voxel_mean(points[judged], right[judged])
        completeness[tolerance] = _voxel_mean(truth, to_points <= tolerance)
    return Scores(accuracy, completeness)


def read_scans(alignment: Path) -> list[Scan]:
    """The scans that a MeshLab project names, in its world."""
    scans = []
    for mesh in ET.parse(alignment).getroot().iter("MLMesh"):
        matrix = mesh.findtext("MLMatrix44")
        assert matrix is not None
        world_from_scan = np.array(matrix.split(), float).reshape(4, 4)
        points = read_ply(alignment.parent / mesh.attrib["filename"])
        scans.append(
            Scan(points @ world_from_scan[:3, :3].T + world_from_scan[:3, 3], world_from_scan[:3, 3])
        )
    return scans


def read_ply(path: Path) -> Array:
    """Positions (n, 3) of a binary little-endian PLY file of vertices with scalar properties."""
    kinds = {"float": "<f4", "float32": "<f4", "double": "<f8", "uchar": "u1", "uint8": "u1", "int": "<i4"}
    kinds |= {"uint": "<u4", "short": "<i2", "ushort": "<u2", "char": "i1", "float64": "<f8", "int32": "<i4"}
    with path.open("rb") as file:
        count, fields, element = 0, [], ""
        while (line := file.readline().decode("ascii").split()) != ["end_header"]:
            if line[:1] == ["format"] and line[1] != "binary_little_endian":
                raise ValueError(f"{path}: {line[1]} is not supported")
            if line[:1] == ["element"]:
                element = line[1]
                count = int(line[2]) if element == "vertex" else count
            elif line[:1] == ["property"] and element == "vertex":
                fields.append((line[2], kinds[line[1]]))
        data = np.fromfile(file, np.dtype(fields), count)
    return np.stack([data[axis] for axis in "xyz"], axis=1).astype(float)


def by_program(
    program: Path, points: Array, alignment: Path, tolerances: tuple[float, ...] = TOLERANCES
) -> Scores:
    """The same by ETH3D's own program, ETH3DMultiViewEvaluation.

    Raises:
        UserError: it cannot be run, fails, or says something else than its documentation tells.
    """
    ordered = sorted(tolerances)  # as the program orders what it prints
    with tempfile.TemporaryDirectory() as folder:
        cloud = Path(folder) / "points.ply"
        header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
        header += [f"property float {axis}" for axis in "xyz"]
        cloud.write_bytes("\n".join([*header, "end_header", ""]).encode() + points.astype("<f4").tobytes())
        files = ["--reconstruction_ply_path", cloud, "--ground_truth_mlp_path", alignment]
        command = [program, *files, "--tolerances", ",".join(map(str, ordered)), "--voxel_size", VOXEL]
        try:
            done = subprocess.run([*map(str, command)], capture_output=True, text=True)
        except OSError as error:
            raise UserError(f"{program} cannot be run: {error.strerror}; check --program") from error
    if done.returncode:
        raise UserError(f"{program} failed ({done.returncode}): {' '.join(done.stderr.split())}")
    found = {}
    for line in done.stdout.splitlines():
        name, _, values = line.partition(":")
        if name in ("Accuracies", "Completenesses"):
            found[name] = [float(value) for value in values.split()]
    if sorted(map(len, found.values())) != [len(ordered)] * 2:
        raise UserError(f"{program} told no accuracies and completenesses: is it ETH3DMultiViewEvaluation?")
    accuracy, completeness = (
        dict(zip(ordered, found[name], strict=True)) for name in ("Accuracies", "Completenesses")
    )
    return Scores(accuracy, completeness)


def _depth_difference(points: Array, scan: Scan) -> Array:
    """How far behind (before: negative) what the nearest beam has hit each point lies; NaN beside beams."""
    hits, rays = scan.points - scan.origin, points - scan.origin
    depth, distance = np.linalg.norm(hits, axis=1), np.linalg.norm(rays, axis=1)
    tree = cKDTree(hits / depth[:, None])
    angle, beam = tree.query(rays / np.maximum(distance, 1e-12)[:, None])
    some = tree.data[:: max(1, len(hits) // 2000)]
    spacing = np.median(tree.query(some, k=2)[0][:, 1])
    reach = np.maximum(SPACING * spacing, np.tan(BEAM_DIVERGENCE) + BEAM_RADIUS / np.maximum(distance, 1e-12))
    return np.where(angle <= reach, distance - depth[beam], np.nan)


def _voxel_mean(points: Array, good: NDArray[np.bool_]) -> float:
    """The mean over the voxels of both grids of the mean inside each; 0 without points."""
    means = [np.zeros(0)]
    for shift in (0.0, 0.5) if len(points) else ():
        cells = np.floor(points / VOXEL + shift).astype(np.int64)
        voxel = np.unique(cells, axis=0, return_inverse=True)[1].ravel()
        means.append(np.bincount(voxel, good) / np.bincount(voxel))
    pooled = np.concatenate(means)
    return float(pooled.mean()) if len(pooled) else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("scans", type=Path)
    parser.add_argument("--tolerances", default=",".join(map(str, TOLERANCES)))
    args = parser.parse_args()
    model = pycolmap.Reconstruction(args.model)
    points = np.array([point.xyz for point in model.points3D.values()])
    scores = evaluate(points, read_scans(args.scans), tuple(map(float, args.tolerances.split(","))))
    print(json.dumps({"accuracy": scores.accuracy, "completeness": scores.completeness}, indent=1))


if __name__ == "__main__":
    main()
