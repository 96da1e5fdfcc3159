"""`event-router config` and `event-router config schema`; floor 7."""

from __future__ import annotations

import os
from pathlib import Path

import click

from router.cli.common import config_option, env_file_option, find_config


@click.group(invoke_without_command=True)
@config_option
@env_file_option
@click.pass_context
def config(context: click.Context, config: Path | None, env_file: Path | None) -> None:
    """Print the effective configuration: includes merged, defaults filled in, `${…}` as written.

    `event-router config schema` prints the JSON Schema (draft-07) for completion and checks in editors.
    """
    context.obj = (config, env_file)
    if context.invoked_subcommand is None:
        from router.ops.loading.effective import effective

        click.echo(effective(find_config(config), environ=os.environ, env_file=env_file, pipes=True).rstrip())


@config.command()
@config_option
@env_file_option
@click.pass_obj
def schema(outer: tuple[Path | None, Path | None], config: Path | None, env_file: Path | None) -> None:
    """Print the JSON Schema of the configuration, for editors.

    The schema has the options of every loaded sink, including drop-in plugins of the configuration. Save it as
    config.schema.json and begin the configuration with
    `# yaml-language-server: $schema=config.schema.json`.
    """
    from router.cli.common import print_json
    from router.cli.write.plugins import loaded_plugins
    from router.ops.loading.schema_export import config_schema

    print_json(config_schema(loaded_plugins(config or outer[0], env_file or outer[1])), indent=2)
