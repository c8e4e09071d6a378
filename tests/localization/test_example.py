"""The example of docs/localization.md runs as it stands there."""

import re
from pathlib import Path

import numpy as np
import pytest

from pixcli.localization.localizer import QueryLocalizer

import pycolmap

PAGE = Path(__file__).parents[2] / "docs" / "localization.md"


def test_the_example_localizes(
    left_out, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "refined").mkdir()
    left_out.model.write_binary(str(tmp_path / "refined"))
    (tmp_path / "images").symlink_to(left_out.images)
    (tmp_path / "query.jpg").symlink_to(left_out.images / left_out.name)
    np.savetxt(tmp_path / "camera.txt", left_out.camera.params)
    np.savetxt(tmp_path / "keypoints.txt", left_out.keypoints)
    rows = slice(None, None, 20)
    np.savetxt(tmp_path / "matches.txt", np.c_[left_out.point2D_idxs, left_out.point3D_ids][rows], fmt="%d")
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(example, str(PAGE), "exec"), names)
    assert "points:" in capsys.readouterr().out
    result = names["result"]
    assert left_out.position_error(result.cam_from_world) < 0.6 * left_out.position_error(left_out.first)
    again = QueryLocalizer(pycolmap.Reconstruction(tmp_path / "refined"), references=tmp_path / "map.h5")
    assert again.map.source == "file"
