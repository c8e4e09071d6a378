"""QueryLocalizer with the surface strategy on a small exact scene, and on queries that it must refuse."""

from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy

import h5py
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import map_coordinates

from pixcli.errors import UserError
from pixcli.io.images import read_image
from pixcli.localization.localizer import QueryLocalizer
from pixcli.options import AbsolutePoseOptions
from pixcli.options.localization import LocalizeOptions


@pytest.fixture(scope="module")
def localizer(left_out):
    return left_out.localizer()


def some(left_out, number):
    return np.random.default_rng(0).choice(len(left_out.point3D_ids), number, replace=False)


def test_twenty_matches_do_what_all_do(left_out, localizer):
    everything = left_out.localize(left_out.localizer(densify="always"))
    few = left_out.localize(localizer, some(left_out, 20))
    assert everything.success
    assert few.success
    raw, best = left_out.position_error(left_out.first), left_out.position_error(everything.cam_from_world)
    assert best < 0.6 * raw
    assert left_out.position_error(few.cam_from_world) < 1.1 * best
    assert [step.name for step in few.steps if step.measurements] == ["matches", "points"]
    assert few.steps[-2].measurements > 1000
    assert few.undone == ""


def test_matches_alone_are_measured(left_out):
    result = left_out.localize(left_out.localizer(densify="never"))
    raw = left_out.position_error(left_out.first)
    assert left_out.position_error(result.cam_from_world) < 0.6 * raw
    assert result.num_inliers > 0.95 * len(left_out.point3D_ids)
    given = left_out.keypoints[left_out.point2D_idxs]
    points = np.array([left_out.model.points3D[i].xyz for i in left_out.point3D_ids])
    truth = left_out.camera.img_from_cam(left_out.truth * points)
    moved = (result.keypoints != given).any(1)
    assert moved.mean() > 0.9
    before, after = (np.linalg.norm(xy - truth, axis=1)[moved] for xy in (given, result.keypoints))
    assert np.median(after) < 0.8 * np.median(before)
    step = next(step for step in result.steps if step.name == "matches")
    assert step.cost_after < step.cost_before


def test_points_without_a_surface_are_aligned(left_out, tmp_path):
    """By six parameters, from a plane that faces the reference's camera."""
    path = tmp_path / "references.h5"
    path.write_bytes(left_out.references.read_bytes())
    with h5py.File(path, "r+") as file:
        file["normal"][...] = np.nan
    localizer = QueryLocalizer(left_out.model, references=path)
    result = left_out.localize(localizer)
    assert [step.name for step in result.steps if step.measurements] == ["matches"]
    given = left_out.keypoints[left_out.point2D_idxs]
    moved = (result.keypoints != given).any(1)
    assert moved.mean() > 0.7
    points = np.array([left_out.model.points3D[i].xyz for i in left_out.point3D_ids])
    truth = left_out.camera.img_from_cam(left_out.truth * points)
    before, after = (np.linalg.norm(xy - truth, axis=1)[moved] for xy in (given, result.keypoints))
    assert np.median(after) < 0.85 * np.median(before)
    assert left_out.position_error(result.cam_from_world) < 0.7 * left_out.position_error(left_out.first)


def test_covariance_is_of_the_size_of_the_error(left_out):
    for densify in ("always", "never"):
        result = left_out.localize(left_out.localizer(densify=densify))
        assert 0.02 < left_out.normalised_error(result) < 6
        np.testing.assert_allclose(result.covariance, result.covariance.T, atol=1e-18)
        assert (np.linalg.eigvalsh(result.covariance) > 0).all()


def test_any_number_of_threads_gives_the_same(left_out, localizer):
    rows = [some(left_out, n) for n in (8, 30, 60, 200)] * 2
    one = [left_out.localize(localizer, r) for r in rows]
    with ThreadPoolExecutor(4) as pool:
        many = list(pool.map(lambda r: left_out.localize(localizer, r), rows))
    for a, b in zip(one, many, strict=True):
        assert np.array_equal(a.cam_from_world.params, b.cam_from_world.params)
        assert np.array_equal(a.covariance, b.covariance)


def test_pixels_serve_as_well_as_files(left_out, localizer):
    pixels = read_image(left_out.images / left_out.name)
    a = left_out.localize(localizer, some(left_out, 30))
    b = left_out.localize(localizer, some(left_out, 30), image=pixels)
    assert np.array_equal(a.cam_from_world.params, b.cam_from_world.params)
    color = np.asarray(Image.open(left_out.images / left_out.name).convert("RGB"))
    c = left_out.localize(localizer, some(left_out, 30), image=color)
    assert left_out.position_error(c.cam_from_world) < 1.2 * left_out.position_error(a.cam_from_world)


def test_a_focal_length_is_estimated_or_refined_on_request(left_out):
    true = left_out.camera.mean_focal_length()
    wrong = deepcopy(left_out.camera)
    wrong.rescale(wrong.width, wrong.height)
    params = np.array(wrong.params)
    params[:2] *= 1.02
    wrong.params = params
    kept = left_out.localize(left_out.localizer(densify="always"), camera=wrong)
    assert kept.camera.mean_focal_length() == wrong.mean_focal_length()
    refined = left_out.localize(left_out.localizer(densify="always", refine_focal_length=True), camera=wrong)
    assert abs(refined.camera.mean_focal_length() / true - 1) < 1e-3
    wrong.has_prior_focal_length = False
    estimated = left_out.localize(left_out.localizer(densify="always"), camera=wrong)
    assert abs(estimated.camera.mean_focal_length() / true - 1) < 1e-3
    assert left_out.position_error(estimated.cam_from_world) < 0.2 * left_out.position_error(
        kept.cam_from_world
    )
    assert wrong.mean_focal_length() == pytest.approx(1.02 * true)  # the caller's camera stays as it was


def test_an_image_of_something_else_changes_little(left_out, localizer):
    """Nothing agrees with the references: the pose rests on the keypoints."""
    noise = np.random.default_rng(0).uniform(0, 255, (left_out.camera.height, left_out.camera.width))
    result = left_out.localize(localizer, image=noise)
    assert result.success
    raw = left_out.position_error(left_out.first)
    assert left_out.position_error(result.cam_from_world) < 1.5 * raw


def test_an_image_that_misleads_is_seen(left_out):
    """It is bent by a pixel here and there: keypoints, which are not, tell the pose better."""
    pixels = read_image(left_out.images / left_out.name)
    y, x = np.mgrid[: pixels.shape[0], : pixels.shape[1]].astype(float)
    bent = map_coordinates(
        pixels, [y + 0.8 * np.sin(x / 9 + y / 13), x + 0.8 * np.sin(y / 11 - x / 17)], order=3, mode="nearest"
    )
    for densify, steps in (("never", ["matches"]), ("always", ["matches", "points"])):
        localizer = left_out.localizer(densify=densify)
        assert left_out.localize(localizer).undone == ""
        result = left_out.localize(localizer, image=bent)
        # That pose was computed apart: where memory lies decides over the last bits of COLMAP's solver.
        np.testing.assert_allclose(result.cam_from_world.params, left_out.first.params, rtol=0, atol=1e-9)
        assert np.array_equal(result.keypoints, left_out.keypoints[left_out.point2D_idxs])
        for step in steps:
            assert f"the refinement by {step} left projections uncertain by" in result.undone


def test_matches_with_deleted_points_do_not_count(left_out, localizer):
    ids = np.array(left_out.point3D_ids)
    ids[::3] = 10**9 + np.arange(len(ids[::3]))
    result = left_out.localize(localizer, point3D_ids=ids)
    assert result.success
    assert not result.inliers[::3].any()
    assert len(result.inliers) == len(ids)
    assert np.isfinite(result.keypoints).all()


def bad_queries(left_out):
    none = np.zeros(0, int)
    rows, ids = left_out.point2D_idxs, left_out.point3D_ids
    flat = deepcopy(left_out.camera)
    flat.params = np.zeros(len(flat.params))
    return {
        "it has no keypoints": {"keypoints": np.zeros((0, 2)), "point2D_idxs": none, "point3D_ids": none},
        "it has no matches": {"point2D_idxs": none, "point3D_ids": none},
        "3 matches with points of the model, but a pose takes 4": {
            "point2D_idxs": rows[:3],
            "point3D_ids": ids[:3],
        },
        "0 matches with points": {"point3D_ids": ids + 10**9},
        "a match names keypoint": {"point2D_idxs": rows + 10**6},
        "no rows of keypoints": {"point2D_idxs": rows[:-1]},
        "keypoints have the shape": {"keypoints": left_out.keypoints.ravel()},
        "not finite": {"keypoints": np.full_like(left_out.keypoints, np.nan)},
        "no usable intrinsics": {"camera": flat},
        "agree": {"point3D_ids": np.random.default_rng(0).permutation(ids)[:12], "point2D_idxs": rows[:12]},
        "no such image": {"image": left_out.images / "missing.jpg"},
        "its image has the shape (20, 30)": {"image": np.zeros((20, 30))},
    }


def test_a_bad_query_has_a_reason(left_out):
    localizer = left_out.localizer()
    localizer = QueryLocalizer(
        left_out.model,
        LocalizeOptions(absolute_pose=AbsolutePoseOptions(min_num_inliers=8)),
        references=left_out.references,
    )
    for reason, changes in bad_queries(left_out).items():
        result = left_out.localize(localizer, **changes)
        assert not result.success, reason
        assert reason in result.reason
        assert result.cam_from_world is None
        assert result.num_inliers == 0


def test_a_truncated_image_fails_its_query_only(left_out, localizer, tmp_path):
    path = tmp_path / left_out.name
    path.write_bytes((left_out.images / left_out.name).read_bytes()[:2000])
    result = left_out.localize(localizer, image=path)
    assert not result.success
    assert "cannot be read" in result.reason


def test_a_localizer_needs_something_to_compare_with(left_out):
    with pytest.raises(UserError, match="takes references, or the image_path"):
        QueryLocalizer(left_out.model)


def test_few_points_leave_the_matches_in(left_out):
    matches = left_out.localize(left_out.localizer(densify="never"))
    few = left_out.localize(left_out.localizer(densify="always", max_num_points=20))
    assert few.steps[-2].measurements <= 20
    assert np.trace(few.covariance) < 1.3 * np.trace(matches.covariance)


def test_results_print_what_matters(left_out, localizer):
    result = left_out.localize(localizer, some(left_out, 30))
    text = repr(result)
    assert f"inliers: {result.num_inliers} of 30" in text
    assert "camera centre: " in text
    assert len(text.splitlines()) < 10
    assert result._repr_html_().count("<tr>") == len(result.summary())
    failed = left_out.localize(localizer, some(left_out, 3))
    assert "3 matches with points of the model" in repr(failed)
