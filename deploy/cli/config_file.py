"""Where an option's value comes from: a flag, before its TIDECAST_* variable, before the settings file."""

from pathlib import Path
from typing import Any

import typer
from typer.exceptions import TyperException

from deploy.settings.files import Address, log_address, read_settings
from deploy.settings.locations import CONFIG_FILE
from tidecast.errors import ConfigError

_PATH = "tidecast.config"
"""The key of a command's context under which the path of its settings file is kept."""


def apply_settings_file(context: typer.Context, path: Path | None) -> Path | None:
    """Make a TOML file's values this command's defaults. Raises ConfigError for one that no command takes."""
    path = context.meta[_PATH] = path or CONFIG_FILE
    settings, options = read_settings(path, known_settings(context)), _settable(context.command)
    settings = {name: value for name, value in settings.items() if name in options}
    for name, value in settings.items():
        try:
            options[name].process_value(context, value)
        except TyperException as error:
            raise ConfigError(f"{path}: {name} = {value!r}: {error}") from None
    context.default_map = {options[name].name: value for name, value in settings.items()}
    return path


def known_settings(context: typer.Context, *commands: str) -> set[str]:
    """The settings that a file may have: the options of these commands, or of all."""
    group: Any = context.find_root().command
    return {name for command in commands or group.commands for name in _settable(group.commands[command])}


def _settable(command: Any) -> dict[str, Any]:
    """All options of a command but the one that names the file."""
    options = {flag.lstrip("-"): option for option in command.params for flag in option.opts}
    return {name: option for name, option in options.items() if name != "config"}


def with_kafka_settings(context: typer.Context, address: str) -> Address:
    """A log's address with the Kafka settings of the environment and of the command's settings file."""
    return log_address(address, context.meta.get(_PATH, CONFIG_FILE))


def closest(context: typer.Context, *names: str) -> dict[str, Any]:
    """Of options that exclude each other the closest: a flag before a variable, that before the file; others are None.

    Raises ConfigError unless there is exactly one.
    """
    values = {name: context.params[name] for name in names}
    distance = {
        name: source.value
        for name, value in values.items()
        if value is not None and (source := context.get_parameter_source(name))
    }
    nearest = [name for name, far in distance.items() if far == min(distance.values())]
    if len(nearest) != 1:
        raise ConfigError(f"give one of {' and '.join(f'--{name}' for name in names)}")
    return {name: value if name in nearest else None for name, value in values.items()}
