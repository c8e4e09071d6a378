"""pixcli help [command]"""

import click

from pixcli import __version__
from pixcli.cli.main import COMMANDS, load_command
from pixcli.options.presets import preset_names


@click.command("help", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("command", required=False)
def help(command: str | None) -> None:
    """List the commands, or show the options of one."""
    if command is not None:
        load_command(command).main(["--help"], prog_name=f"pixcli {command}", standalone_mode=False)
        return
    width = max(len(name) for name in COMMANDS)
    click.echo(f"pixcli {__version__}: makes the results of COLMAP sub-pixel accurate.\n")
    click.echo("Usage: pixcli <command> [options]\n\nCommands:")
    for name, summary in sorted(COMMANDS.items()):
        click.echo(f"  {name:{width}}  {summary}")
    click.echo(f"\nPresets (--preset): {', '.join(preset_names())}")
    click.echo("'pixcli help <command>' or 'pixcli <command> -h' shows the options of a command.")
