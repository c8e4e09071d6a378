"""Where the log of a command goes and how much it says, with COLMAP's options and line format."""

import logging
import os
import sys

from pixcli.errors import UserError
from pixcli.options import CommonOptions

_LEVELS = {-2: logging.ERROR, -1: logging.WARNING, 0: logging.INFO, 1: logging.DEBUG}


def configure_logging(options: CommonOptions) -> None:
    """Sets up the logger "pixcli", which all modules log under; replaces an earlier set-up."""
    handlers: list[logging.Handler] = []
    if options.log_target in ("stderr", "stderr_and_file"):
        handlers.append(logging.StreamHandler(sys.stderr))
    if options.log_target == "stdout":
        handlers.append(logging.StreamHandler(sys.stdout))
    if options.log_target in ("file", "stderr_and_file"):
        if not options.log_path:
            raise UserError(f"log_target {options.log_target} needs --log_path with the name of the log file")
        try:
            handlers.append(logging.FileHandler(options.log_path, encoding="utf-8"))
        except OSError as error:
            raise UserError(f"{options.log_path}: cannot write the log: {error.strerror}") from None
    log = logging.getLogger("pixcli")
    for old in list(log.handlers):
        log.removeHandler(old)
        old.close()
    # As COLMAP's: the level's letter, date, time, process, file and line.
    line = "%(levelname).1s%(asctime)s.%(msecs)03d %(process)d %(filename)s:%(lineno)d] %(message)s"
    for handler in handlers:
        handler.setFormatter(logging.Formatter(line, datefmt="%Y%m%d %H:%M:%S"))
        log.addHandler(handler)
    log.setLevel(_LEVELS[options.log_level])
    # COLMAP's and Ceres' own lines are details. What is imported only later reads the environment.
    least = 0 if log.isEnabledFor(logging.DEBUG) else 3
    os.environ["GLOG_minloglevel"] = str(least)  # noqa: SIM112
    if "pycolmap" in sys.modules:
        sys.modules["pycolmap"].logging.minloglevel = least
        sys.modules["pycolmap"].logging.logtostderr = True  # and to no files beside
    if "pixcli.ceres" in sys.modules:
        sys.modules["pixcli.ceres"].set_log_level(least)
