"""COLMAP's option groups, made from pycolmap's objects."""

import dataclasses

import pytest

from pixcli.errors import UserError
from pixcli.options import ChainOptions, GlobalMapperOptions, ImageReaderOptions, MapperOptions
from pixcli.options.colmap import applied
from pixcli.options.fields import build, build_all, fields

import pycolmap

SOURCES = {
    "ImageReader": pycolmap.ImageReaderOptions,
    "FeatureExtraction": pycolmap.FeatureExtractionOptions,
    "SiftExtraction": pycolmap.SiftExtractionOptions,
    "FeatureMatching": pycolmap.FeatureMatchingOptions,
    "SiftMatching": pycolmap.SiftMatchingOptions,
    "ExhaustiveMatching": pycolmap.ExhaustivePairingOptions,
    "SequentialMatching": pycolmap.SequentialPairingOptions,
    "VocabTreeMatching": pycolmap.VocabTreePairingOptions,
    "TwoViewGeometry": pycolmap.TwoViewGeometryOptions,
    "Mapper": pycolmap.IncrementalPipelineOptions,
    "GlobalMapper": pycolmap.GlobalPipelineOptions,
}
GROUPS = [type(group) for group in vars(ChainOptions()).values() if group.group in SOURCES]


def values_of(target: object, paths: dict[str, str]) -> dict[str, object]:
    found = {}
    for name, path in paths.items():
        value = target
        for part in path.split("."):
            value = getattr(value, part)
        found[name] = getattr(value, "name", value)
    return found


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.group)
def test_every_option_reaches_colmap(group) -> None:
    changed = {}
    for field in fields(group):
        is_text = field.kind is str and not field.choices
        if field.name not in group._pycolmap_paths or is_text:
            continue
        if field.choices:
            changed[field.name] = next((c for c in field.choices if c != field.default), field.default)
        else:
            changed[field.name] = not field.default if field.kind is bool else field.default / 2 + 3
            changed[field.name] = field.kind(changed[field.name])
    assert changed
    target = applied(group(**changed), SOURCES[group.group]())
    found = values_of(target, group._pycolmap_paths)
    assert {name: found[name] for name in changed} == pytest.approx(changed)


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.group)
def test_defaults_are_colmaps_but_for_the_threads_of_mapping(group) -> None:
    plain, set_by_us = SOURCES[group.group](), applied(group(), SOURCES[group.group]())
    before, after = (values_of(each, group._pycolmap_paths) for each in (plain, set_by_us))
    different = {name for name in before if before[name] != after[name]}
    assert different == ({"num_threads"} if group in (MapperOptions, GlobalMapperOptions) else set())


def test_names_are_those_of_colmaps_command_line() -> None:
    names = {field.key for field in fields(MapperOptions)}
    assert {"Mapper.ba_refine_focal_length", "Mapper.init_min_num_inliers", "Mapper.tri_min_angle"} <= names
    names = {field.key for field in fields(GlobalMapperOptions)}
    assert {"GlobalMapper.ba_num_iterations", "GlobalMapper.gp_optimize_scales"} <= names
    assert not any("random_seed" in name or "gpu" in name for name in names)


def test_paths_and_sharing() -> None:
    reader = applied(ImageReaderOptions(mask_path="masks"), pycolmap.ImageReaderOptions())
    assert str(reader.mask_path) == "masks"
    assert ImageReaderOptions().camera_mode == pycolmap.CameraMode.AUTO
    assert ImageReaderOptions(single_camera_per_image=True).camera_mode == pycolmap.CameraMode.PER_IMAGE


def test_values_by_key_are_checked() -> None:
    options = build_all(ChainOptions, {"Mapper.tri_min_angle": 3.0, "Reconstruction.mapper": "global"})
    assert options.reconstruction.mapper == "global"
    assert dataclasses.asdict(options.mapper)["tri_min_angle"] == 3.0
    with pytest.raises(UserError, match=r"SiftExtraction.normalization is 'L3', but takes \{L1_ROOT, L2\}"):
        build(type(ChainOptions().sift_extraction), {"SiftExtraction.normalization": "L3"})
