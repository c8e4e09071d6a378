"""Tracks of ten million match edges: processor time on one core, and memory."""

import resource
import subprocess
import sys
import time

import numpy as np
from common import Bench, arguments
from numpy.typing import NDArray

from pixcli import _core

EDGES, PER_IMAGE, IMAGES_OF_TRACK, WRONG = 10_000_000, 4000, 6, 0.05


def match_graph(num_edges: int) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]:
    """Edges (m, 2), the image of each keypoint (n,) and scores (m,), as of a large collection.

    True tracks take one keypoint of each of a few neighbouring images, all pairs of them matched; one match
    in twenty is wrong and would join two tracks.
    """
    rng = np.random.default_rng(0)
    pairs = np.stack(np.triu_indices(IMAGES_OF_TRACK, 1), 1)
    num_tracks = num_edges // len(pairs)
    num_images = max(num_tracks // PER_IMAGE, 1) + IMAGES_OF_TRACK
    first = rng.integers(0, num_images - IMAGES_OF_TRACK + 1, num_tracks)
    image = (first[:, None] + np.arange(IMAGES_OF_TRACK)).ravel().astype(np.int32)
    edges = (IMAGES_OF_TRACK * np.arange(num_tracks)[:, None, None] + pairs).reshape(-1, 2).astype(np.int32)
    wrong = rng.random(len(edges)) < WRONG
    edges[wrong, 1] = rng.integers(0, len(image), wrong.sum())
    scores = rng.random(len(edges), np.float32) * np.where(wrong, 0.7, 1).astype(np.float32)
    order = rng.permutation(len(edges))
    return np.ascontiguousarray(edges[order]), image, scores[order]


def peak_memory() -> int:
    """Bytes that this process has held at most."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def measure(num_edges: int) -> str:
    """Seconds, keypoints, and bytes beyond the input that building tracks takes, in a process of its own."""
    edges, image, scores = match_graph(num_edges)
    # What making the graph took at its peak is filled first, so that the peak rises with the tracks alone.
    slack = peak_memory() - resident_memory()
    filler = np.ones(max(slack, 0), np.uint8)
    before, start = peak_memory(), time.process_time()
    _core.build_tracks(edges, image, scores)
    seconds = time.process_time() - start
    return f"{seconds} {len(image)} {peak_memory() - before} {len(filler)}"


def resident_memory() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def main() -> None:
    """Prints the table."""
    parser = arguments(__doc__)
    parser.add_argument("--measure", type=int, help="build tracks of so many edges and print what it took")
    args = parser.parse_args()
    if args.measure is not None:
        print(measure(args.measure))
        return
    bench = Bench("tracks")
    taken = {}
    for num_edges in (EDGES // 10, EDGES):
        command = [sys.executable, __file__, "--measure", str(num_edges)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        taken[num_edges] = [float(word) for word in output.split()]
    seconds, keypoints, memory, _ = taken[EDGES]
    bench.row("10 million edges", seconds, "s", "<= 20")
    growth = seconds / taken[EDGES // 10][0]
    bench.row("10 million edges: time over that of 1 million", growth, "x")
    bench.row("memory beyond the input", memory / 1e6, "MB")
    # The target of the design: 64 bytes a keypoint and 16 an edge.
    bench.row(
        "memory over 64 bytes a keypoint + 16 an edge", memory / (64 * keypoints + 16 * EDGES), "x", "<= 1"
    )
    bench.finish(args)


if __name__ == "__main__":
    main()
