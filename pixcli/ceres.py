"""pyceres and the cost functions of pixcli and of COLMAP for it: the one place where all are imported, in the
right order.

from pixcli.ceres import colmap_costs, costs, pyceres
"""

from pixcli.errors import UserError

SUPPORTED_CERES = "2.2"
REMEDY = "Install a fitting one with: pip install 'pyceres>=2.6,<2.7'"

# pyceres registers ceres::CostFunction, which the types of _costs derive from and pycolmap's cost functions
# are: it must be there before them.
try:
    import pyceres
except ImportError as error:
    raise UserError(f"pyceres cannot be imported ({error}). {REMEDY}") from error

if not pyceres.__ceres_version__.startswith(SUPPORTED_CERES):
    raise UserError(
        f"pyceres {pyceres.__version__} carries Ceres {pyceres.__ceres_version__}, "
        f"but the cost functions of pixcli need {SUPPORTED_CERES}. {REMEDY}"
    )

from pycolmap import cost_functions as colmap_costs  # noqa: E402

import pixcli._costs as costs  # noqa: E402

__all__ = ["colmap_costs", "costs", "pyceres"]
