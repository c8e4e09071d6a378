"""The worked example of docs/feature_models.md passes the checker."""

import re
from pathlib import Path

from pixcli.options import DenseFeaturesOptions
from pixcli.sampling.model_check import check_model

PAGE = Path(__file__).parents[2] / "docs" / "feature_models.md"


def test_the_model_of_the_page_keeps_what_it_declares(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "my_model.py").write_text(code)
    found = check_model(DenseFeaturesOptions(model_path=str(tmp_path / "my_model.py")), (304, 208))
    assert found.levels == ["1 channels, stride 1, radius 4, correlation"]
