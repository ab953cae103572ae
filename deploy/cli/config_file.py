"""Where an option's value comes from: a flag, before its TIDECAST_* variables, before the settings file.

A variable or a setting may be one command's own, TIDECAST_SERVE_FOLLOW or `follow` in the table [serve], or shared,
TIDECAST_FOLLOW or `follow` at the file's top, which is for every command that has such an option and means the same by
it.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import typer
from typer.core import TyperCommand
from typer.exceptions import TyperException

from deploy.settings.files import Address, log_address, read_settings, setting_text
from deploy.settings.locations import CONFIG_FILE, default_log, default_tracking
from deploy.settings.serve import Start
from deploy.settings.values import FORECAST_FILES
from pipeline.log.settings import ClientChoice
from tidecast.errors import ConfigError
from tidecast.freq import parse_duration

_PATH = "tidecast.config"
"""The key of a command's context under which the path of its settings file is kept."""
_OWN = "tidecast.own"
"""The key of the options whose values from the file are the command's own."""
SCOPES = {"check": ("check", "serve"), "schedule": ("schedule", "retrain")}
"""Commands that take the settings of the command that they are about, too; their own come first."""
FLAG_WORDS = ("1", "true", "t", "yes", "y", "on", "0", "false", "f", "no", "n", "off")


def _is_duration(text: str) -> bool:
    with suppress(ConfigError):
        return parse_duration(text) >= 0
    return False


def _is_table_file(text: str) -> bool:
    return text.endswith(FORECAST_FILES)


STARTS = get_args(Start)
OTHERS = "*"
"""All commands that are not named."""
MEANINGS: dict[str, dict[str, Callable[[str], bool]]] = {
    "follow": {
        **dict.fromkeys(("serve", "check"), _is_duration),
        **dict.fromkeys(("tail", "score"), lambda text: text.lower() in FLAG_WORDS),
    },
    "from": {
        **dict.fromkeys(("serve", "check"), STARTS.__contains__),
        **dict.fromkeys(("replay", "score", "dashboard"), lambda text: text not in STARTS),
    },
    "model": {"explain": lambda text: text.endswith(".onnx"), OTHERS: lambda _: True},
    "output": {
        "forecast": _is_table_file,
        **dict.fromkeys(("serve", "check", "retrain", "schedule", "dashboard"), lambda text: not _is_table_file(text)),
    },
    # Kubernetes sets TIDECAST_PORT=tcp://... in all pods beside a Service called tidecast.
    "port": {"dashboard": str.isdecimal, OTHERS: lambda text: text.startswith("tcp://")},
}
"""Names that mean different things to different commands: which shared values are meant for each."""


def _is_meant(command: str, name: str, value: Any) -> bool:
    """Whether a shared value is meant for this command; one that none can use is, so that it is said to be wrong."""
    meanings = MEANINGS.get(name, {OTHERS: lambda _: True})
    fits = meanings.get(command, meanings.get(OTHERS))
    return fits is None or fits(value) or not any(each(value) for each in meanings.values())


def scopes(command: str) -> tuple[str, ...]:
    """The commands whose own settings a command takes, the first before the second."""
    return SCOPES.get(command, (command,))


def _variable(*names: str) -> str:
    return "_".join(("TIDECAST", *names)).replace("-", "_").upper()


def own_variable(command: str, name: str) -> str | None:
    """A command's own variable for an option, if one is set."""
    return next((text for scope in scopes(command) if (text := os.environ.get(_variable(scope, name)))), None)


def _from_environment(command: str, name: str, _: typer.Context) -> str | None:
    """The value of an option's variable: the command's own, or a shared one that is meant for it."""
    if own := own_variable(command, name):
        return own
    shared = os.environ.get(_variable(name))
    return shared if shared and _is_meant(command, name, shared) else None


class SettingsCommand(TyperCommand):
    """A command whose options have variables of their own."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Find the options' values. Raises ConfigError for a variable's that can be none."""
        for name, option in settable(self).items():
            option.resolve_envvar_value = partial(_from_environment, str(self.name), name)
        try:
            return super().parse_args(ctx, args)
        except TyperException as error:
            if variable := _variable_at_fault(ctx, self, error):
                message = plain(getattr(error, "message", str(error)))
                raise ConfigError(f"{variable} = {os.environ[variable]!r}: {message}") from None
            raise


def plain(message: str) -> str:
    """A message about an option's value, without the name of Python's error that pydantic begins it with."""
    return message.replace("Value error, ", "")


def _variable_at_fault(ctx: Any, command: Any, error: TyperException) -> str:
    """The variable that an option's wrong value is from; empty if it is from elsewhere."""
    for name, option in settable(command).items():
        source = ctx.get_parameter_source(option.name)
        if option is getattr(error, "param", None) and source is not None and source.name == "ENVIRONMENT":
            variables = [_variable(scope, name) for scope in scopes(str(command.name))]
            return next((each for each in variables if os.environ.get(each)), _variable(name))
    return ""


def settable(command: Any) -> dict[str, Any]:
    """The options of a command by name; those of a settings file are all but `config`, which names it."""
    options = (each for each in command.params if each.param_type_name == "option" and each.name != "help")
    return {flag.lstrip("-"): option for option in options for flag in option.opts if flag.startswith("--")}


def _commands(context: typer.Context) -> dict[str, dict[str, Any]]:
    """The options of each command that a file may set."""
    group: Any = context.find_root().command
    commands = {name: settable(command) for name, command in group.commands.items()}
    for options in commands.values():
        options.pop("config", None)
    return commands


def _arguments(context: typer.Context) -> set[str]:
    """The positional arguments of all commands: files of earlier versions set them, and they have no effect there."""
    group: Any = context.find_root().command
    parameters = (each for command in group.commands.values() for each in command.params)
    return {str(each.name).replace("_", "-") for each in parameters if each.param_type_name == "argument"}


def settings_of(context: typer.Context, command: str, path: Path) -> tuple[dict[str, Any], set[str]]:
    """A command's values in a TOML file, as text, by name; and the names of those that are its own.

    Raises ConfigError for a setting that no command has, or that cannot be a value of the command's option.
    """
    commands = _commands(context)
    settings, options = read_settings(path, commands, _arguments(context)), commands[command]
    own: dict[str, Any] = {}
    for scope in scopes(command)[::-1]:
        own |= {name: value for name, value in settings.tables.get(scope, {}).items() if name in options}
    shared = {name: value for name, value in settings.shared.items() if name in options and name not in own}
    texts = {name: _as_given(f"{path}: {name}", value, options[name]) for name, value in (shared | own).items()}
    unmeant = {name for name in shared if not _is_meant(command, name, texts[name])}
    return {name: text for name, text in texts.items() if name not in unmeant}, {*own}


def _as_given(where: str, value: object, option: Any) -> str | list[str]:
    """A setting as an option's text, or its texts if it may be given several times."""
    if isinstance(value, bool) and not option.is_flag:
        raise ConfigError(f"{where} = {str(value).lower()}: this option takes a value")
    if option.multiple:
        return [setting_text(where, each) for each in (value if isinstance(value, list) else [value])]
    return setting_text(where, value)


def apply_settings_file(context: typer.Context, path: Path | None) -> Path | None:
    """Make a TOML file's values this command's defaults. Raises ConfigError for one that no command takes."""
    path = context.meta[_PATH] = path or CONFIG_FILE
    command, options = str(context.command.name), settable(context.command)
    settings, context.meta[_OWN] = settings_of(context, command, path)
    for name, value in settings.items():
        try:
            options[name].get_runtime_param().coerce(value, param=options[name], ctx=context)
        except TyperException as error:
            raise ConfigError(f"{path}: {name} = {value!r}: {plain(str(error))}") from None
    context.default_map = {options[name].name: value for name, value in settings.items()}
    return path


def with_kafka_settings(context: typer.Context, address: str) -> Address:
    """A log's address with the Kafka settings of the environment and of the command's settings file."""
    source = context.get_parameter_source("bootstrap")
    default = source is not None and source.name == "DEFAULT"
    found = log_address(default_log() if default else address, context.meta.get(_PATH, CONFIG_FILE))
    _set_client(found, context.params.get("client"))
    return found


def with_client(context: typer.Context, client: ClientChoice | None) -> ClientChoice | None:
    """A Kafka client's name, which comes before that of the Kafka settings."""
    _set_client(context.params.get("bootstrap"), client)
    return client


def _set_client(address: Address | None, client: ClientChoice | None) -> None:
    """Whichever of the two options is looked at last sets it."""
    if address is not None and client is not None:
        address.kafka = replace(address.kafka, client=client)


def in_home(context: typer.Context, tracking_uri: str | None) -> str | None:
    """A registry's URI; the default one is in the folder that --home names."""
    source = context.get_parameter_source("tracking_uri")
    return default_tracking() if tracking_uri and source is not None and source.name == "DEFAULT" else tracking_uri


def closest(context: typer.Context, *names: str) -> dict[str, Any]:
    """Of options that exclude each other the closest; others are None.

    A flag before a variable, that before the file; and of either what is the command's own before what is shared.
    Raises ConfigError unless there is exactly one.
    """
    values = {name: context.params[name] for name in names}
    distance = {
        name: (source.value, not _is_own(context, name, source.name))
        for name, value in values.items()
        if value is not None and (source := context.get_parameter_source(name))
    }
    nearest = [name for name, far in distance.items() if far == min(distance.values())]
    if len(nearest) != 1:
        raise ConfigError(f"give one of {' and '.join(f'--{name}' for name in names)}")
    return {name: value if name in nearest else None for name, value in values.items()}


def _is_own(context: typer.Context, name: str, source: str) -> bool:
    own: Mapping[str, bool] = {
        "ENVIRONMENT": own_variable(str(context.command.name), name) is not None,
        "DEFAULT_MAP": name in context.meta[_OWN],
    }
    return own.get(source, False)
