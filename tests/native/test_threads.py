"""Loops on several threads where the system refuses to start them."""

import subprocess
import sys

CODE = """
import resource
import numpy as np
from pixcli import _core

image = np.random.default_rng(0).uniform(0, 255, (400, 300)).astype(np.float32)
options = {"bin_size": 4, "rootsift": True, "half": True}
alone = _core.dense_sift(image, **options, num_threads=1)
for room in (7 << 30, 1 << 30):  # a thread's stack is 2 GiB: there is room for three of eight, then for none
    taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + room, resource.RLIM_INFINITY))
    assert (_core.dense_sift(image, **options, num_threads=8) == alone).all()
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print("done")
"""


def test_the_threads_that_there_are_do_the_work():
    """A thread's stack is as large as the limit that its process was started with."""
    command = ["bash", "-c", 'ulimit -s 2097152 && exec "$0" -P -c "$1"', sys.executable, CODE]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stdout) == (0, "done\n"), result.stderr
