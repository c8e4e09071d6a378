"""A synthetic scene in the layout of the ETH3D benchmark (high-resolution multi-view), laser scans included.

images/dslr_images_undistorted/      images that a pinhole camera took, else images/dslr_images/
dslr_calibration_undistorted/        COLMAP model as text, else dslr_calibration_jpg/; names are below images/
dslr_scan_eval/                      scan1.ply, scan2.ply, ..., each in the frame of its scanner
dslr_scan_eval/scan_alignment.mlp    MeshLab project with the pose of every scanner in the world
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixcli.synthetic.render import RayGrid, render
from pixcli.synthetic.scene import Scene, View

import pycolmap

Array = NDArray[np.float64]

_SCANNER = 600
"""Width and height of a scanner's view of 90 degrees, in rays."""


def layout_names(scene: Scene) -> tuple[str, str]:
    """The folders of images and calibration, as ETH3D calls them for these cameras."""
    undistorted = all(camera.model.name == "PINHOLE" for camera in scene.cameras.values())
    return (
        ("dslr_images_undistorted", "dslr_calibration_undistorted")
        if undistorted
        else ("dslr_images", "dslr_calibration_jpg")
    )


def move_to_layout(scene: Scene, folder: Path) -> None:
    """Turns a folder with `images`, `gt` and `depth` into ETH3D's layout, and scans the scene."""
    images, calibration = layout_names(scene)
    (folder / "images").rename(folder / images)
    (folder / "images").mkdir()
    (folder / images).rename(folder / "images" / images)
    model = pycolmap.Reconstruction(folder / "gt")
    for image in model.images.values():
        image.name = f"{images}/{image.name}"
    model.write_text(folder / "gt")
    (folder / "gt").rename(folder / calibration)
    (folder / "dslr_scan_eval").mkdir()
    centres = np.array([view.center for view in scene.views])
    poses = []
    for number, place in enumerate((0.25, 0.75), start=1):
        view = _scanner(scene, np.quantile(centres, place, axis=0))
        points = _scan(scene, view)
        _write_ply(folder / "dslr_scan_eval" / f"scan{number}.ply", points)
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = view.rotation.T, view.center
        poses.append(pose)
    _write_mlp(folder / "dslr_scan_eval" / "scan_alignment.mlp", poses)


def _scanner(scene: Scene, centre: Array) -> View:
    """A view from here, turned as the image that was taken nearest to it."""
    nearest = min(scene.views, key=lambda view: float(np.linalg.norm(view.center - centre)))
    rotation = nearest.rotation
    return View("scan", 0, rotation, -rotation @ centre, nearest.light)


def _scan(scene: Scene, view: View) -> NDArray[np.float32]:
    """Points (n, 3) that a scanner hits, in its own frame, exact."""
    half = _SCANNER / 2
    camera = pycolmap.Camera(
        camera_id=0, model="PINHOLE", width=_SCANNER, height=_SCANNER, params=[half, half, half, half]
    )
    depth = render(replace(scene, cameras={0: camera}), view, RayGrid.of_camera(camera), 1)[1]
    row, column = np.nonzero(depth)
    z = depth[row, column].astype(np.float64)
    points = np.stack([(column + 0.5 - half) / half * z, (row + 0.5 - half) / half * z, z], axis=1)
    return points.astype(np.float32)


def _write_ply(path: Path, points: NDArray[np.float32]) -> None:
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}"]
    header += [f"property float {axis}" for axis in "xyz"]
    path.write_bytes("\n".join([*header, "end_header", ""]).encode() + points.astype("<f4").tobytes())


def _write_mlp(path: Path, world_from_scan: Sequence[Array]) -> None:
    meshes = "\n".join(
        f'  <MLMesh label="scan{k}" filename="scan{k}.ply">\n   <MLMatrix44>\n'
        + "".join(" ".join(repr(float(value)) for value in row) + "\n" for row in pose)
        + "</MLMatrix44>\n  </MLMesh>"
        for k, pose in enumerate(world_from_scan, start=1)
    )
    text = f"<!DOCTYPE MeshLabDocument>\n<MeshLabProject>\n <MeshGroup>\n{meshes}\n </MeshGroup>\n"
    path.write_text(f"{text}</MeshLabProject>\n", encoding="utf-8")
