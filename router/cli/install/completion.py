"""`event-router completion SHELL`; floor 7."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_HOW = {
    "bash": 'eval "$(event-router completion bash)"      in ~/.bashrc',
    "zsh": 'eval "$(event-router completion zsh)"       in ~/.zshrc',
    "fish": "event-router completion fish | source       in ~/.config/fish/config.fish",
}


@click.command(epilog="\b\n" + "\n".join(_HOW.values()))
@click.argument("shell", type=click.Choice(list(_HOW)))
def completion(shell: str) -> None:
    """Print the completion script of a shell."""
    from router.cli.main import cli

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"There is no completion for {shell!r}.")
    click.echo(kind(cli, {}, "event-router", "_EVENT_ROUTER_COMPLETE").source())
