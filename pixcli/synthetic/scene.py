"""Scenes: which bodies stand where, and the views on them. Metres, z is up, the facade looks along -y."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pixcli.errors import UserError
from pixcli.options.synthetic import SyntheticOptions
from pixcli.synthetic.surfaces import Cylinder, Rectangle, Relief, Sphere, Surface
from pixcli.synthetic.textures import Texture, load_photos, make_texture

import pycolmap

Array = NDArray[np.float64]

# The extra parameters of each camera model at distortion 1, added to those of a lens without distortion.
_DISTORTIONS: dict[str, tuple[float, ...]] = {
    "SIMPLE_RADIAL": (-0.09,),
    "RADIAL": (-0.12, 0.034),
    "OPENCV": (-0.12, 0.034, 0.0007, -0.0004),
    "FULL_OPENCV": (-0.1, 0.03, 0.0007, -0.0004, 0.002, 0.02, 0.004, 0.001),
    "FOV": (0.7,),
    "SIMPLE_DIVISION": (-0.1,),
    "DIVISION": (-0.1,),
    "SIMPLE_RADIAL_FISHEYE": (-0.04,),
    "RADIAL_FISHEYE": (-0.04, 0.01),
    "OPENCV_FISHEYE": (-0.04, 0.01, -0.003, 0.0005),
    "THIN_PRISM_FISHEYE": (-0.04, 0.01, 0.0007, -0.0004, -0.003, 0.0005, 0.0006, -0.0003),
    "RAD_TAN_THIN_PRISM_FISHEYE": (
        *(-0.04, 0.01, -0.003, 0.0005, -0.0001, 0.00002),
        *(0.0007, -0.0004, 0.0006, -0.0002, -0.0003, 0.0001),
    ),
    "EUCM": (0.5, 0.1),
}


@dataclass(frozen=True)
class Body:
    """A textured surface in its place."""

    surface: Surface
    texture: Texture
    rotation: Array  # (3, 3) world_from_body
    position: Array  # (3,) its origin in the world


@dataclass(frozen=True)
class View:
    """One image: its camera, exact pose and light."""

    name: str
    camera_id: int
    rotation: Array  # (3, 3) cam_from_world
    translation: Array  # (3,) cam_from_world
    light: Array  # (3,) unit vector in the world, towards the light

    @property
    def center(self) -> Array:
        return -(self.rotation.T @ self.translation)


@dataclass(frozen=True)
class Scene:
    """All that is rendered."""

    bodies: list[Body]
    cameras: dict[int, pycolmap.Camera]
    views: list[View]


def build_scene(options: SyntheticOptions, texture_path: Path | None, executor: Executor) -> Scene:
    """The scene that the options and their seed describe; photos of a folder may replace its textures."""
    photos = load_photos(texture_path) if texture_path else []
    places = _LAYOUTS[options.scene](np.random.default_rng([options.seed, 0]))
    # Two texels for a pixel at the middle distance, so that textures are as sharp as the images can show.
    density = min(800.0, options.focal_ratio * options.width / 3)

    def texture(index: int) -> Texture:
        rng = np.random.default_rng([options.seed, 1, index])
        return make_texture(rng, places[index][0].size, density, photos)

    textures = executor.map(texture, range(len(places)))
    bodies = [
        Body(surface, t, r, np.asarray(p, float)) for (surface, r, p), t in zip(places, textures, strict=True)
    ]
    rng = np.random.default_rng([options.seed, 2])
    cameras = {k + 1: _camera(rng, k, options) for k in range(options.num_cameras)}
    return Scene(bodies, cameras, _views(rng, options))


def _camera(rng: np.random.Generator, index: int, options: SyntheticOptions) -> pycolmap.Camera:
    focal = options.focal_ratio * options.width * (1 + 0.17 * (index % 2)) * (1 + 0.02 * rng.uniform(-1, 1))
    camera = pycolmap.Camera.create_from_model_name(
        index + 1, options.camera_model, focal, options.width, options.height
    )
    params = camera.params.copy()
    if len(camera.focal_length_idxs()) == 2:
        params[1] *= 1.003
    params[camera.principal_point_idxs()] += rng.uniform(-0.01, 0.01, 2) * options.width
    strength = options.distortion * (1 - 0.1 * (index % 2))
    params[camera.extra_params_idxs()] += strength * np.array(_DISTORTIONS.get(options.camera_model, ()))
    camera.params = params
    if not np.isfinite(camera.cam_from_img(_border(camera))).all():
        raise UserError(
            f"Synthetic.distortion {options.distortion:g} is too strong for a {options.camera_model} "
            f"camera of Synthetic.focal_ratio {options.focal_ratio:g}: the image corners have no ray. "
            "Lower the distortion or raise the focal ratio."
        )
    return camera


def _border(camera: pycolmap.Camera) -> Array:
    """Pixel positions (n, 2) one pixel outside the image, where rays are farthest from the axis."""
    x, y = np.linspace(-1, camera.width + 1, 50), np.linspace(-1, camera.height + 1, 50)
    sides = [(x, np.full(50, y[0])), (x, np.full(50, y[-1])), (np.full(50, x[0]), y), (np.full(50, x[-1]), y)]
    return np.concatenate([np.stack(side, axis=1) for side in sides])


def _views(rng: np.random.Generator, options: SyntheticOptions) -> list[View]:
    """Views along the path."""
    views = []
    for k, (center, target) in enumerate(_PATHS[options.path](rng, options)):
        forward = target - center
        forward /= np.linalg.norm(forward)
        roll = 0.0 if options.path == "turntable" else rng.uniform(-0.1, 0.1)
        right = np.cross(forward, [np.sin(roll), 0, np.cos(roll)])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        light = np.array([-0.3, -0.8, 0.6]) + 0.35 * options.illumination * rng.standard_normal(3)
        light[1] = min(light[1], -0.2)  # from the front
        name = f"{k:04d}.{options.format}"
        camera_id = 1 + k % options.num_cameras
        views.append(View(name, camera_id, rotation, -rotation @ center, light / np.linalg.norm(light)))
    return views


# Paths: where the camera is, and the point it looks at, image by image.

_Path = Iterator[tuple[Array, Array]]


def _arc(rng: np.random.Generator, options: SyntheticOptions) -> _Path:
    """Along an arc in front of the facade, near and far in random order: neighbours differ in scale."""
    number = options.num_images
    half_arc = np.radians(min(42.0, 7.0 * (number - 1)))
    azimuths = np.linspace(-half_arc, half_arc, number) + np.radians(rng.uniform(-4, 4, number))
    radii = rng.permutation(np.linspace(4.9, 8.8, number))
    for azimuth, radius in zip(azimuths, radii, strict=True):
        target = np.array([0, -0.8, 1.6]) + rng.uniform(-0.4, 0.4, 3)
        center = target + radius * np.array([np.sin(azimuth), -np.cos(azimuth), 0])
        center[2] = rng.uniform(1.2, 3.3)
        yield center, target


def _turntable(_: np.random.Generator, options: SyntheticOptions) -> _Path:
    """Around an upright axis: one distance, one height, always towards the axis."""
    target = np.array([0, -0.8, 1.5])
    for azimuth in np.radians(np.linspace(-45, 45, options.num_images)):
        yield target + np.array([7 * np.sin(azimuth), -7 * np.cos(azimuth), 0.8]), target


def _flight(rng: np.random.Generator, options: SyntheticOptions) -> _Path:
    """In strips 4.5 m before the facade, facing it but for some wobble: a drone above its ground."""
    columns = max(-(-options.num_images // 3), 1)
    for k in range(options.num_images):
        strip, place = divmod(k, columns)
        across = np.linspace(-2.4, 2.4, columns)[place] * (1 if strip % 2 == 0 else -1)
        center = np.array([across, -4.5, 1.2 + strip]) + rng.uniform(-0.1, 0.1, 3)
        yield center, center * (1, 0, 1) + 4.5 * np.tan(np.radians(rng.uniform(-3, 3, 3))) * (1, 0, 1)


def _forward(rng: np.random.Generator, options: SyntheticOptions) -> _Path:
    """Towards the facade, looking ahead."""
    for distance in np.linspace(8.5, 4.0, options.num_images):
        center = np.array([0, -distance, 1.7]) + rng.uniform(-0.05, 0.05, 3)
        yield center, center * (1, 0, 1) + rng.uniform(-0.2, 0.2, 3) * (1, 0, 1)


_PATHS: dict[str, Callable[[np.random.Generator, SyntheticOptions], _Path]] = {
    "arc": _arc,
    "turntable": _turntable,
    "flight": _flight,
    "forward": _forward,
}


# Layouts: surfaces with rotation (world_from_body) and position.

_Place = tuple[Surface, Array, tuple[float, float, float]]
_FLAT = np.eye(3)  # looks up


def _upright(yaw: float, tilt: float = 0.0) -> Array:
    """Rotation of a standing rectangle, degrees; yaw 0 looks along -y, 90 along +x; tilt leans it back."""
    yaw, tilt = np.radians(yaw), np.radians(tilt)
    x = np.array([np.cos(yaw), np.sin(yaw), 0])
    normal = np.array([np.sin(yaw) * np.cos(tilt), -np.cos(yaw) * np.cos(tilt), np.sin(tilt)])
    return np.stack([x, np.cross(normal, x), normal], axis=1)


def _relief(
    rng: np.random.Generator, width: float, height: float, amplitude: float, wavelength: float
) -> Relief:
    """Six waves in all directions, `wavelength` to three times as long; |z| stays below `amplitude`."""
    lengths = wavelength * rng.uniform(1, 3, 6)
    angles = np.pi * (np.arange(6) + rng.uniform(0, 1, 6)) / 6
    waves = 2 * np.pi / lengths[:, None] * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    return Relief(width, height, amplitude * lengths / lengths.sum(), waves, rng.uniform(0, 2 * np.pi, 6))


def _box(rng: np.random.Generator, x: float, y: float) -> list[_Place]:
    width, depth, height = rng.uniform(0.5, 1.1, 3)
    yaw = rng.uniform(-40, 40)
    axes = _upright(yaw)
    center = np.array([x, y, height / 2])
    places: list[_Place] = []
    for turn, wide, off in ((0, width, depth), (90, depth, width), (180, width, depth), (270, depth, width)):
        rotation = _upright(yaw + turn)
        places.append((Rectangle(wide, height), rotation, tuple(center + rotation[:, 2] * off / 2)))
    lid = np.stack([axes[:, 0], -axes[:, 2], [0, 0, 1]], axis=1)
    return [*places, (Rectangle(width, depth), lid, (x, y, height))]


def _column(rng: np.random.Generator, x: float, y: float) -> _Place:
    # Taller than any camera stands: its open top is never seen.
    return Cylinder(rng.uniform(0.2, 0.35), 3.6), _FLAT, (x, y, 0.0)


def _ball(rng: np.random.Generator, x: float, y: float, lift: float = 0.0) -> _Place:
    radius = rng.uniform(0.4, 0.65)
    return Sphere(radius), _FLAT, (x, y, radius + lift)


def _court(rng: np.random.Generator) -> list[_Place]:
    """A slightly wavy facade, the ground, a side wall, boxes, a ball and a column."""
    slots = rng.permutation([-2.6, -1.1, 0.4, 1.5, 2.9]) + rng.uniform(-0.25, 0.25, 5)
    rows = rng.uniform(-3.2, -1.2, 5)
    return [
        (_relief(rng, 8.0, 4.5, 0.06, 1.0), _upright(0), (0.0, 0.0, 2.25)),
        (Rectangle(8.0, 5.2), _FLAT, (0.0, -2.4, 0.0)),  # reaches behind the waves of the facade
        (Rectangle(2.2, 3.0), _upright(90), (-4.0, -1.1, 1.5)),
        *_box(rng, slots[0], rows[0]),
        *_box(rng, slots[1], rows[1]),
        *_box(rng, slots[2], rows[2]),
        _ball(rng, slots[3], rows[3]),
        _column(rng, slots[4], rows[4]),
    ]


def _reliefs(rng: np.random.Generator) -> list[_Place]:
    """A strongly bumpy facade over bumpy ground."""
    return [
        (_relief(rng, 8.0, 4.9, 0.3, 0.9), _upright(0), (0.0, 0.0, 2.05)),  # starts under the ground
        (_relief(rng, 8.0, 5.0, 0.12, 0.9), _FLAT, (0.0, -2.1, 0.0)),
    ]


def _mixture(rng: np.random.Generator) -> list[_Place]:
    """A flat facade and ground, columns, balls, a box, leaning panels and a relief, all in random places."""
    slots = rng.permutation(np.linspace(-3.2, 3.2, 9)) + rng.uniform(-0.15, 0.15, 9)
    rows = rng.uniform(-3.0, -0.9, 9)
    spots = list(zip(slots.tolist(), rows.tolist(), strict=True))
    panels = [
        (
            Rectangle(*rng.uniform(0.9, 1.5, 2)),
            _upright(*rng.uniform((-50, -25), (50, 40))),
            (x, y, rng.uniform(1, 2.4)),
        )
        for x, y in spots[:2]
    ]
    return [
        (Rectangle(8.0, 4.5), _upright(0), (0.0, 0.0, 2.25)),
        (Rectangle(8.0, 5.0), _FLAT, (0.0, -2.5, 0.0)),
        *panels,
        (_relief(rng, 1.6, 1.6, 0.12, 0.5), _upright(*rng.uniform((-30, 0), (30, 30))), (*spots[2], 1.2)),
        *_box(rng, *spots[3]),
        _column(rng, *spots[4]),
        _column(rng, *spots[5]),
        _ball(rng, *spots[6]),
        _ball(rng, *spots[7], lift=rng.uniform(0.5, 1.5)),
        _ball(rng, *spots[8]),
    ]


def _flat(_: np.random.Generator) -> list[_Place]:
    """A single plane."""
    return [(Rectangle(8.0, 4.5), _upright(0), (0.0, 0.0, 2.25))]


_LAYOUTS: dict[str, Callable[[np.random.Generator], list[_Place]]] = {
    "court": _court,
    "relief": _reliefs,
    "mixed": _mixture,
    "flat": _flat,
}
