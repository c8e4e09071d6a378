"""What `import pixcli` offers."""

import subprocess
import sys

import pytest

import pixcli


def test_importing_pixcli_loads_nothing_heavy() -> None:
    code = "import sys, pixcli; print(any(name in sys.modules for name in ('numpy', 'pycolmap', 'torch')))"
    run = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


@pytest.mark.parametrize("name", pixcli.__all__)
def test_the_functions_behind_the_commands_are_there_and_documented(name: str) -> None:
    function = getattr(pixcli, name)
    assert callable(function)
    assert function.__doc__
    assert name in dir(pixcli)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'reconstuct'"):
        _ = pixcli.reconstuct
