import os
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


FAILING_SOLVE = """
import numpy as np
import zlib, pycolmap  # and with it pyceres, before pixcli could say anything
from pixcli.ceres import pyceres

class Huge(pyceres.CostFunction):
    def __init__(self):
        super().__init__()
        self.set_num_residuals(1)
        self.set_parameter_block_sizes([1])

    def Evaluate(self, parameters, residuals, jacobians):
        residuals[0] = 1.0
        if jacobians is not None:
            jacobians[0][0] = 1e170
        return True

problem, cost, x = pyceres.Problem(), Huge(), np.ones(1)
problem.add_residual_block(cost, None, [x])
options = pyceres.SolverOptions()
options.jacobi_scaling = False
options.logging_type = pyceres.LoggingType.SILENT
pyceres.solve(options, problem, pyceres.SolverSummary())
"""


def test_ceres_keeps_its_lines_to_itself(tmp_path):
    loud = FAILING_SOLVE.replace("from pixcli.ceres import pyceres", "import pyceres")
    for code, is_loud in ((loud, True), (FAILING_SOLVE, False)):
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        environment.pop("GLOG_minloglevel", None)
        command = [sys.executable, "-P", "-c", code]
        run = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert run.returncode == 0, run.stderr
        assert ("trust_region_minimizer.cc" in run.stderr) == is_loud
    assert run.stderr == ""
