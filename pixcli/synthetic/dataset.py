"""Writes a synthetic scene as a folder: images, exact COLMAP model, depth maps, surface sample."""

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from pixcli.errors import UserError
from pixcli.options.synthetic import SyntheticOptions
from pixcli.progress import Progress
from pixcli.synthetic.eth3d import move_to_layout
from pixcli.synthetic.relighting import relight
from pixcli.synthetic.render import RayGrid, render
from pixcli.synthetic.scene import Body, Scene, View, build_scene

import pycolmap

Depth = NDArray[np.float32]


def generate_dataset(
    output_path: Path,
    options: SyntheticOptions,
    texture_path: Path | None = None,
    progress: Progress | None = None,
) -> None:
    """Renders the scene into the folder `output_path`, which must be new or empty.

    The folder appears when it is complete. The same options give the same bytes, with any number of threads.
    """
    progress = progress or Progress()
    with _new_folder(output_path) as folder, _threads(options.num_threads) as executor:
        with progress.phase("Textures"):
            scene = build_scene(options, texture_path, executor)
        with progress.phase("Images", len(scene.views)) as update:
            depths = {}
            for view, depth in _render_views(scene, options, folder, executor):
                depths[view.name] = depth
                update(len(depths))
        with progress.phase("Surface"):
            points, normals = _surface(scene, depths, options.surface_spacing, executor)
            np.savez(folder / "surface.npz", points=points, normals=normals)
        _write_model(scene, folder / "gt", options.output_type)
        if options.layout == "eth3d":
            move_to_layout(scene, folder)
        settings = {k: v for k, v in dataclasses.asdict(options).items() if k != "num_threads"}
        settings["textures"] = texture_path.name if texture_path else "procedural"
        (folder / "scene.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")


@contextmanager
def _new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of `path` at the end, and leaves nothing behind on an error."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError(f"output_path: {path} exists and is not an empty folder; give a new one.")
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        partial.chmod(0o777 & ~_umask())
        yield partial
        if path.exists():
            path.rmdir()
        partial.rename(path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextmanager
def _threads(number: int) -> Iterator[Executor]:
    """A pool that, on an error, does not first finish all that was begun."""
    executor = ThreadPoolExecutor(number if number > 0 else os.cpu_count())
    try:
        yield executor
    finally:
        executor.shutdown(cancel_futures=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _render_views(
    scene: Scene, options: SyntheticOptions, folder: Path, executor: Executor
) -> Iterator[tuple[View, Depth]]:
    """Renders and writes all images and depth maps, camera by camera: one ray grid is held at a time."""
    (folder / "images").mkdir()
    (folder / "depth").mkdir()
    for camera_id, camera in scene.cameras.items():
        views = [view for view in scene.views if view.camera_id == camera_id]
        grid = RayGrid.of_camera(camera)

        def make(view: View, grid: RayGrid = grid) -> tuple[View, Depth]:
            colour, depth = render(scene, view, grid, options.samples)
            index = scene.views.index(view)
            if options.appearance_change > 0:
                light = np.random.default_rng([options.seed, 4, index])
                colour = relight(light, colour, depth, view, grid, options.appearance_change)
            rng = np.random.default_rng([options.seed, 3, index])
            _write_image(folder / "images" / view.name, _expose(rng, colour, options))
            np.savez_compressed(folder / "depth" / f"{Path(view.name).stem}.npz", depth=depth)
            return view, depth

        yield from executor.map(make, views)


def _expose(
    rng: np.random.Generator, colour: NDArray[np.float32], options: SyntheticOptions
) -> NDArray[np.uint8]:
    """What a camera makes of the light: a smooth change over the image, tint, gain and bias, blur, noise."""
    height, width = colour.shape[:2]
    strength = options.illumination
    x, y = np.arange(width)[None] / width, np.arange(height)[:, None] / width
    field = np.zeros((height, width))
    for _ in range(3):
        wave, phase = rng.normal(0, 4, 2), rng.uniform(0, 2 * np.pi)
        field += np.cos(wave[0] * x + wave[1] * y + phase) / 3
    tint = 1 + 0.08 * strength * rng.standard_normal(3)
    gain, bias = 1 + strength * rng.uniform(-0.3, 0.3), strength * rng.uniform(-15, 15)
    exposed = colour * (gain * (1 + 0.3 * strength * field))[..., None] * tint + bias
    if options.blur > 0:
        exposed = ndimage.gaussian_filter(exposed, (options.blur, options.blur, 0))
    exposed += options.noise * rng.standard_normal(colour.shape, np.float32)
    image: NDArray[np.uint8] = np.clip(np.round(exposed), 0, 255).astype(np.uint8)
    return image


def _write_image(path: Path, image: NDArray[np.uint8]) -> None:
    if path.suffix == ".jpg":
        Image.fromarray(image).save(path, quality=95)
    else:
        Image.fromarray(image).save(path, compress_level=3)


def _surface(
    scene: Scene, depths: dict[str, Depth], spacing: float, executor: Executor
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Points (n, 3) on all surfaces that two images or more see, and their normals (n, 3)."""

    def seen(body: Body) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        local = body.surface.sample(spacing)
        points = (body.rotation @ local).T + body.position
        normals = (body.rotation @ body.surface.normals(local)).T
        count = np.zeros(len(points), int)
        for view in scene.views:
            count += _visible(points, normals, view, scene.cameras[view.camera_id], depths[view.name])
        return points[count >= 2], normals[count >= 2]

    points, normals = zip(*executor.map(seen, scene.bodies), strict=True)
    return np.concatenate(points).astype(np.float32), np.concatenate(normals).astype(np.float32)


def _visible(
    points: NDArray[np.float64],
    normals: NDArray[np.float64],
    view: View,
    camera: pycolmap.Camera,
    depth: Depth,
) -> NDArray[np.bool_]:
    """Which points (n, 3) the image shows: those that face it and lie at the depth of their pixel."""
    in_camera = points @ view.rotation.T + view.translation
    ahead = np.flatnonzero((in_camera[:, 2] > 0.1) & ((normals * (view.center - points)).sum(axis=1) > 0))
    x, y = np.nan_to_num(camera.img_from_cam(in_camera[ahead]), nan=-1.0).T
    inside = (x >= 0) & (x < camera.width) & (y >= 0) & (y < camera.height)
    ahead, column, row = ahead[inside], x[inside].astype(int), y[inside].astype(int)
    z = in_camera[ahead, 2]
    visible = np.zeros(len(points), bool)
    visible[ahead] = np.abs(depth[row, column] - z) < 0.01 * z  # on slanted surfaces a pixel spans some depth
    return visible


def _write_model(scene: Scene, path: Path, output_type: str) -> None:
    """The exact model: cameras, images, rigs and frames; no points."""
    model = pycolmap.Reconstruction()
    for camera in scene.cameras.values():
        model.add_camera_with_trivial_rig(camera)
    for index, view in enumerate(scene.views):
        image = pycolmap.Image(name=view.name, camera_id=view.camera_id, image_id=index + 1)
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(view.rotation), view.translation)
        model.add_image_with_trivial_frame(image, pose)
    path.mkdir()
    (model.write_text if output_type == "text" else model.write_binary)(path)
