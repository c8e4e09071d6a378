"""pixcli project_generator"""

from pathlib import Path

from pixcli.cli.params import Values, command
from pixcli.options.ini import write_ini


@command
def project_generator(output_path: Path, values: Values) -> None:
    """Write an ini file with every option.

    The values are those of --preset and --project_path, where given, and the defaults for all others.
    """
    write_ini(output_path, {key: value for key, value in values.items() if key != "output_path"})
