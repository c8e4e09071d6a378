import subprocess
import sys

import pytest

OTHER_CERES = "types.SimpleNamespace(__version__='9', __ceres_version__='2.3.0')"


@pytest.mark.parametrize(
    ("pyceres", "message"), [(OTHER_CERES, "Ceres 2.3.0"), ("None", "pyceres cannot be imported")]
)
def test_a_wrong_or_missing_pyceres_is_told_and_the_rest_works(pyceres, message):
    code = f"""
import sys, types
sys.modules["pyceres"] = {pyceres}
from pixcli.cli.main import main
from pixcli.errors import UserError
try:
    import pixcli.ceres
except UserError as error:
    print("told:", error)
sys.exit(main(["version", "--verbose"]))
"""
    result = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    told = next(line for line in result.stdout.splitlines() if line.startswith("told:"))
    assert message in told
    assert "pip install 'pyceres" in told
