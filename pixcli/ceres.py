"""pyceres and the cost functions of pixcli for it: the one place where both are imported, in the right order.

from pixcli.ceres import costs, pyceres
"""

from pixcli.errors import UserError

SUPPORTED_CERES = "2.2"
REMEDY = "Install a fitting one with: pip install 'pyceres>=2.6,<2.7'"

# pyceres registers ceres::CostFunction, which the types of _costs derive from: it must be there before them.
try:
    import pyceres
except ImportError as error:
    raise UserError(f"pyceres cannot be imported ({error}). {REMEDY}") from error

if not pyceres.__ceres_version__.startswith(SUPPORTED_CERES):
    raise UserError(
        f"pyceres {pyceres.__version__} carries Ceres {pyceres.__ceres_version__}, "
        f"but the cost functions of pixcli need {SUPPORTED_CERES}. {REMEDY}"
    )

import pixcli._costs as costs  # noqa: E402

__all__ = ["costs", "pyceres"]
