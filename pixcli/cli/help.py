"""pixcli help [command]"""

import click

from pixcli import __version__
from pixcli.cli.main import COMMANDS, load_command
from pixcli.options.presets import preset_names


@click.command("help", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("command", required=False)
@click.option("--all", "all_options", is_flag=True, help="Show advanced options too.")
def help(command: str | None, all_options: bool) -> None:
    """List the commands, or show the options of one."""
    if command is not None:
        from pixcli.cli.params import ALL_OPTIONS  # not for the list, which is there at once

        found = load_command(command)
        shown = ALL_OPTIONS if all_options else None
        context = click.Context(found, info_name=f"pixcli {command}", obj=shown, **found.context_settings)
        click.echo(found.get_help(context))
        return
    width = max(len(name) for name in COMMANDS)
    click.echo(f"pixcli {__version__}: makes the results of COLMAP sub-pixel accurate.\n")
    click.echo("Usage: pixcli <command> [options]\n\nCommands:")
    for name, summary in sorted(COMMANDS.items()):
        click.echo(f"  {name:{width}}  {summary}")
    click.echo(f"\nPresets (--preset): {', '.join(preset_names())}")
    click.echo("'pixcli help <command>' shows the options of a command, with --all also advanced ones.")
