"""The example of docs/localization.md runs as it stands there."""

import re
from pathlib import Path

import numpy as np

from pixcli.localization.localizer import QueryLocalizer
from tests.processes.pages import python_examples
from tests.processes.place import Place

import pycolmap


def test_the_example_localizes(left_out, tmp_path: Path) -> None:
    (tmp_path / "refined").mkdir()
    left_out.model.write_binary(str(tmp_path / "refined"))
    (tmp_path / "images").symlink_to(left_out.images)
    (tmp_path / "query.jpg").symlink_to(left_out.images / left_out.name)
    np.savetxt(tmp_path / "camera.txt", left_out.camera.params)
    np.savetxt(tmp_path / "keypoints.txt", left_out.keypoints)
    rows = slice(None, None, 20)
    np.savetxt(tmp_path / "matches.txt", np.c_[left_out.point2D_idxs, left_out.point3D_ids][rows], fmt="%d")
    (example,) = python_examples("docs/localization.md")
    printed = Place(tmp_path).python(example)
    assert "points:" in printed
    position = re.search(r"position \[(.*)\]", printed)
    assert position is not None
    error = np.array(position[1].split(), float) - left_out.truth.inverse().translation
    assert np.linalg.norm(error) < 0.6 * left_out.position_error(left_out.first)
    again = QueryLocalizer(pycolmap.Reconstruction(tmp_path / "refined"), references=tmp_path / "map.h5")
    assert again.map.source == "file"
