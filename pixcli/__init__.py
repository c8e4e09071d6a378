"""Sub-pixel refinement of COLMAP keypoints, models and localizations by aligning features across views.

The functions behind the commands, imported when they are first used:

    pixcli.reconstruct            images to a refined model           pixcli reconstructor
    pixcli.triangulate            images and poses to refined points  pixcli triangulator
    pixcli.refine_keypoints       keypoints and matches in memory
    pixcli.refine_database        a database                          pixcli feature_refiner
    pixcli.refine_hloc            hloc's features and matches         pixcli feature_refiner
    pixcli.refine_reconstruction  a model                             pixcli featuremetric_bundle_adjuster
    pixcli.QueryLocalizer         a query and a model                 pixcli localize

pixcli.MatchGraph holds keypoints and matches; pixcli.read_match_graph reads it from a database.
Options are the dataclasses of pixcli.options; a mistake in the input raises pixcli.errors.UserError.
"""

import importlib
from typing import TYPE_CHECKING

from pixcli.zlib_first import load_zlib

load_zlib()

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pixcli.adapters.match_input import MatchInput
    from pixcli.adapters.refine_database import refine_database
    from pixcli.adapters.refine_hloc import refine_hloc
    from pixcli.bundle_adjustment.refinement import refine_reconstruction
    from pixcli.geometry.match_graph import MatchGraph
    from pixcli.io.database import read_match_graph
    from pixcli.keypoint_adjustment.refine import refine_keypoints
    from pixcli.localization.localizer import QueryLocalizer
    from pixcli.reconstruction.reconstruct import reconstruct, triangulate

__all__ = [
    "MatchGraph",
    "MatchInput",
    "QueryLocalizer",
    "read_match_graph",
    "reconstruct",
    "refine_database",
    "refine_hloc",
    "refine_keypoints",
    "refine_reconstruction",
    "triangulate",
]

_WHERE = {
    "MatchGraph": ("pixcli.geometry.match_graph", "MatchGraph"),
    "MatchInput": ("pixcli.adapters.match_input", "MatchInput"),
    "read_match_graph": ("pixcli.io.database", "read_match_graph"),
    "refine_database": ("pixcli.adapters.refine_database", "refine_database"),
    "refine_hloc": ("pixcli.adapters.refine_hloc", "refine_hloc"),
    "QueryLocalizer": ("pixcli.localization.localizer", "QueryLocalizer"),
    "reconstruct": ("pixcli.reconstruction.reconstruct", "reconstruct"),
    "refine_keypoints": ("pixcli.keypoint_adjustment.refine", "refine_keypoints"),
    "refine_reconstruction": ("pixcli.bundle_adjustment.refinement", "refine_reconstruction"),
    "triangulate": ("pixcli.reconstruction.reconstruct", "triangulate"),
}


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'pixcli' has no attribute '{name}'")
    module, attribute = _WHERE[name]
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
