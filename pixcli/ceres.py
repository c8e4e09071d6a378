"""pyceres and the cost functions of pixcli and of COLMAP for it: the one place where all are imported, in the
right order.

from pixcli.ceres import colmap_costs, costs, pyceres
"""

import ctypes
import logging

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

import pixcli._costs as costs  # noqa: E402

from pycolmap import cost_functions as colmap_costs  # noqa: E402

__all__ = ["colmap_costs", "costs", "pyceres", "set_log_level"]


def set_log_level(least: int) -> None:
    """Which lines Ceres writes to stderr: from 0, all, to 3, none.

    pyceres carries a log library of its own. Python has no setting for it, and the environment only counts
    until pycolmap or pyceres is imported. Its parser of command lines serves at any time, where the wheel
    exports it.
    """
    parse = getattr(ctypes.CDLL(pyceres.__file__), "_ZN6google21ParseCommandLineFlagsEPiPPPcb", None)
    if parse is not None:
        options = (b"--minloglevel=%d" % least, b"--logtostderr")  # and to no files beside
        words = (ctypes.c_char_p * 4)(b"pixcli", *options, None)
        number, first = ctypes.c_int(3), ctypes.cast(words, ctypes.POINTER(ctypes.c_char_p))
        parse(ctypes.byref(number), ctypes.byref(first), ctypes.c_bool(False))


# "Linear solver failure" and the like: a step that Ceres tries again, or a failure that we raise.
set_log_level(0 if logging.getLogger("pixcli").isEnabledFor(logging.DEBUG) else 3)
