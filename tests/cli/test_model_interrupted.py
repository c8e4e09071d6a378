"""Ctrl-C and kill during `pixcli featuremetric_bundle_adjuster`: old models and databases stay whole."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

GROUP = "--FeaturemetricBundleAdjustment"

STALLING = """
import sys, time
import {module} as module
from pixcli.cli.main import main

original = module.{function}

def stalling(*arguments, **options):
    if "{when}" == "before":
        print("now", file=sys.stderr, flush=True)
        time.sleep(60)
    result = original(*arguments, **options)
    print("now", file=sys.stderr, flush=True)
    time.sleep(60)
    return result

module.{function} = stalling
sys.exit(main(sys.argv[1:]))
"""
MOMENTS = {
    "reading": ("pixcli.adapters.refine_model", "read_model", "before"),
    "measuring": ("pixcli.bundle_adjustment.surface_rounds", "align_surfaces", "after"),
    "completing": ("pixcli.bundle_adjustment.surface_rounds", "find_candidates", "after"),
    "between loops": ("pixcli.bundle_adjustment.refinement", "revise_tracks", "after"),
    "writing": ("pixcli.adapters.refine_model", "write_model", "after"),
    "writing the database": ("pixcli.adapters.refine_model", "write_database", "after"),
}

SOLVING = """
import sys
import pixcli.bundle_adjustment.solver as solver
from pixcli.cli.main import main

poll = solver._Poll.__call__

def tell(self, summary):
    if summary.iteration == 2:
        print("now", file=sys.stderr, flush=True)
    return poll(self, summary)

solver._Poll.__call__ = tell
sys.exit(main(sys.argv[1:]))
"""


def interrupted(
    place, script: str, *options: object, number: int = signal.SIGINT, output: Path | None = None
) -> tuple[int, str]:
    """Runs the command until the script says "now", and interrupts it then; exit code and last words."""
    arguments = place.arguments("--log_level", -1, *options, output=output)
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", script, *arguments],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TMPDIR": str(place.temporary)},
    )
    with process:
        assert process.stderr is not None
        for line in process.stderr:
            if line == "now\n":
                break
        process.send_signal(number)
        words = process.stderr.read().strip()
    return process.returncode, words


@pytest.mark.parametrize("moment", MOMENTS)
def test_interrupted(model_workplace, moment: str) -> None:
    """In the folder of the input, which it may overwrite, and with a database to be changed in place."""
    module, function, when = MOMENTS[moment]
    script = STALLING.format(module=module, function=function, when=when)
    options = [f"{GROUP}.overwrite", 1, f"{GROUP}.num_loops", 1, f"{GROUP}.rounds", 1]
    options += ["--database_path", model_workplace.database]
    options += ["--output_database_path", model_workplace.output_database]
    before = model_workplace.contents()
    code, words = interrupted(model_workplace, script, *options, output=model_workplace.model)
    assert (code, words) == (130, "pixcli featuremetric_bundle_adjuster: interrupted")
    after = model_workplace.contents()
    if moment == "writing the database":  # which is delivered first, as a file of its own
        assert after.pop(str(model_workplace.output_database))
    assert after == before
    assert not list(model_workplace.temporary.iterdir())
    assert not list(model_workplace.model.parent.glob(".pixcli-*"))


@pytest.mark.parametrize("strategy", ["surface", "geometric", "feature_reference"])
def test_interrupted_in_the_middle_of_a_solve(model_workplace, strategy: str) -> None:
    """A solve that would go on for hours."""
    options = [f"{GROUP}.strategy", strategy, f"{GROUP}.overwrite", 1, "--DenseFeatures.model", "dsift"]
    tolerances = [
        f"--BundleAdjustmentCeres.{name}_tolerance" for name in ("function", "gradient", "parameter")
    ]
    options += [word for name in tolerances for word in (name, 0)]
    options += ["--BundleAdjustmentCeres.max_num_iterations", 10**9]
    before = model_workplace.contents()
    code, words = interrupted(model_workplace, SOLVING, *options, output=model_workplace.model)
    assert (code, words) == (130, "pixcli featuremetric_bundle_adjuster: interrupted")
    assert model_workplace.contents() == before


def test_killed_in_the_middle_of_a_solve(model_workplace) -> None:
    before = model_workplace.contents()
    options = [f"{GROUP}.strategy", "geometric", f"{GROUP}.overwrite", 1]
    code, _ = interrupted(
        model_workplace, SOLVING, *options, number=signal.SIGKILL, output=model_workplace.model
    )
    assert code == -signal.SIGKILL
    assert model_workplace.contents() == before
    run = model_workplace.run(*options, output=model_workplace.model)
    assert run.code == 0, run.err
    assert model_workplace.contents() != before
