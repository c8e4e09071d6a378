"""pixcli version [--verbose]"""

import platform
from importlib import metadata

import click

from pixcli import __version__
from pixcli.errors import UserError


@click.command("version", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--verbose", is_flag=True, help="Show the build, the libraries and the kernels in use.")
def version(verbose: bool) -> None:
    """Show the version; with --verbose, facts about the build."""
    click.echo(f"pixcli {__version__}")
    if verbose:
        for name, fact in _build_facts().items():
            click.echo(f"{name + ':':12}{fact}")


def _build_facts() -> dict[str, str]:
    """What a bug report needs to know."""
    from pixcli import _core  # here, so that a plain `version` stays fast and works without the extension

    try:
        from pixcli.ceres import pyceres

        ceres = pyceres.__ceres_version__
    except UserError as error:
        ceres = str(error)
    build = _core.build_config()
    return {
        "python": f"{platform.python_version()} on {platform.platform()}",
        "numpy": _installed("numpy"),
        "pycolmap": _installed("pycolmap"),
        "pyceres": _installed("pyceres"),
        "ceres": ceres,
        "torch": _installed("torch"),
        "compiler": build["compiler"],
        "kernels": build["kernels"],
    }


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
