"""Tracks of known truth, for the tests of featuremetric adjustment."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from pixcli import _core
from pixcli.keypoint_adjustment.feature_distance import TrackProblem, adjust_keypoints, native_options
from pixcli.options.interpolation import InterpolationOptions
from pixcli.options.keypoint_adjustment import KeypointAdjustmentOptions

SIZE = 16
OPTIONS = KeypointAdjustmentOptions(strategy="featuremetric", max_iterations=100, max_deviation=1e9)
SAMPLING = InterpolationOptions()
EXACT = {"parameter_tolerance": 1e-6, "max_iterations": 200, "max_deviation": 1e300}


class Tracks:
    """Tracks of the same length, all pairs matched, on views of smooth random features with smooth noise.

    Views are shifted by known parts of a sample: the truth is where the root's point lies in each of them.
    """

    def __init__(
        self, tracks, length, *, channels=16, noise=0.05, error=0.7, smoothness=2.0, scale=1.0, seed=0
    ):
        rng = np.random.default_rng(seed)
        n = tracks * length
        self.n, self.length = n, length
        self.corners = rng.integers(0, 500, (n, 2)).astype(np.int32)
        self.scales = np.full((n, 2), scale)
        self.data = np.empty((n, SIZE, SIZE, channels), np.float32)
        shift = rng.uniform(-0.5, 0.5, (n, 2))
        self.truth = (self.corners + SIZE / 2 + shift + 0.5) / self.scales
        frequency = np.fft.fftfreq(SIZE)
        for t in range(tracks):
            blur = (smoothness, smoothness, 0)
            surface = gaussian_filter(rng.standard_normal((SIZE, SIZE, channels)), blur, mode="wrap")
            spectrum = np.fft.fft2(surface / surface.std(), axes=(0, 1))
            for k in range(t * length, (t + 1) * length):
                phase = np.exp(-2j * np.pi * (frequency[:, None] * shift[k, 1] + frequency * shift[k, 0]))
                view = np.fft.ifft2(spectrum * phase[:, :, None], axes=(0, 1)).real
                speckle = gaussian_filter(rng.standard_normal(view.shape), (1, 1, 0), mode="wrap")
                self.data[k] = view + noise * speckle / speckle.std()
        self.track_ptr = np.arange(0, n + 1, length)
        self.members = np.arange(n)
        self.roots = self.track_ptr[:-1]
        pairs = np.stack(np.triu_indices(length, 1), 1)
        self.edges = (self.roots[:, None, None] + pairs).reshape(-1, 2)
        self.xy = self.truth + rng.uniform(-error, error, (n, 2))
        self.xy[self.roots] = self.truth[self.roots]
        self.weights = None
        self.constant = None

    def patches(self):
        return SimpleNamespace(data=self.data, corners=self.corners, scales=self.scales)

    def adjust(self, options=OPTIONS, interpolation=SAMPLING, levels=None, poll=None):
        problem = TrackProblem(self.xy, self.track_ptr, self.members, self.edges, self.weights, self.constant)
        return adjust_keypoints(problem, levels or [(self.patches(), None)], options, interpolation, poll)

    def solve(self, **options):
        """The native solver without its guard."""
        level = (self.data, self.corners, self.scales, np.arange(self.n))
        return _core.adjust_featuremetric(
            self.xy,
            self.track_ptr,
            self.members.astype(np.int32),
            self.edges.astype(np.int32),
            self.weights,
            self.constant,
            [level],
            guard=False,
            num_threads=-1,
            **(native_options(KeypointAdjustmentOptions(), SAMPLING) | EXACT | options),
        )


@pytest.fixture
def feature_tracks():
    return Tracks


@pytest.fixture
def options():
    """The guard on texture is off: it has its own tests."""
    return OPTIONS
