"""Sub-pixel refinement of COLMAP keypoints, models and localizations by aligning features across views.

In memory, on arrays and pycolmap's types:

    refine_keypoints(graph, images, options)         matches, as read_match_graph() reads them
    refine_reconstruction(model, images, options)    a pycolmap.Reconstruction
    QueryLocalizer(model, options, ...).localize()   a query

From files to files, as the commands do it:

    reconstruct, triangulate     pixcli reconstructor, triangulator
    refine_database, refine_hloc pixcli feature_refiner
    refine_model                 pixcli featuremetric_bundle_adjuster
    localize_queries             pixcli localize

All are imported when they are first used. Options are the dataclasses of pixcli.options, which are here too;
preset() makes those of a preset. A mistake in the input raises UserError.
"""

import importlib
from typing import TYPE_CHECKING

from pixcli.zlib_first import load_zlib

load_zlib()

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pixcli.adapters.localize_queries import QueryFiles, localize_queries
    from pixcli.adapters.match_input import MatchInput
    from pixcli.adapters.refine_database import refine_database
    from pixcli.adapters.refine_hloc import refine_hloc
    from pixcli.adapters.refine_model import ModelFiles, refine_model
    from pixcli.bundle_adjustment.problem import Constants
    from pixcli.bundle_adjustment.refinement import refine_reconstruction
    from pixcli.errors import UserError
    from pixcli.geometry.match_graph import MatchGraph
    from pixcli.io.database import read_match_graph
    from pixcli.keypoint_adjustment.refine import refine_keypoints
    from pixcli.localization.localizer import QueryLocalizer
    from pixcli.options.presets import preset
    from pixcli.reconstruction.reconstruct import reconstruct, triangulate

__all__ = [
    "Constants",
    "MatchGraph",
    "MatchInput",
    "ModelFiles",
    "QueryFiles",
    "QueryLocalizer",
    "UserError",
    "localize_queries",
    "preset",
    "read_match_graph",
    "reconstruct",
    "refine_database",
    "refine_hloc",
    "refine_keypoints",
    "refine_model",
    "refine_reconstruction",
    "triangulate",
]

_WHERE = {
    "Constants": ("pixcli.bundle_adjustment.problem", "Constants"),
    "ModelFiles": ("pixcli.adapters.refine_model", "ModelFiles"),
    "QueryFiles": ("pixcli.adapters.localize_queries", "QueryFiles"),
    "UserError": ("pixcli.errors", "UserError"),
    "localize_queries": ("pixcli.adapters.localize_queries", "localize_queries"),
    "preset": ("pixcli.options.presets", "preset"),
    "refine_model": ("pixcli.adapters.refine_model", "refine_model"),
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
    if name in _WHERE:
        module, attribute = _WHERE[name]
        return getattr(importlib.import_module(module), attribute)
    if name.endswith("Options"):
        return getattr(importlib.import_module("pixcli.options"), name)
    raise AttributeError(f"module 'pixcli' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
