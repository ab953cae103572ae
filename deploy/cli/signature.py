"""Options declared once, in groups, and taken by any command."""

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import Any, TypeVar, get_type_hints

import typer

from tidecast.errors import ConfigError

Result = TypeVar("Result")


def option_names(*groups: type) -> set[str]:
    """The names of the groups' options, as parameters are named."""
    return {name for group in groups for name in get_type_hints(group)}


def refuse_without(flag: str, context: typer.Context, *groups: type) -> None:
    """Raises ConfigError for an option of these groups on the command line: it has no effect without a flag."""
    for name in sorted(option_names(*groups)):
        source = context.get_parameter_source(name)
        if (option := name.replace("_", "-")) != flag and source is not None and source.name == "COMMANDLINE":
            raise ConfigError(f"{option}: --{option} is for --{flag} only")


def takes(*groups: type) -> Callable[[Callable[..., Result]], Callable[..., Result]]:
    """Add the options of these groups to a command.

    A group is a class with a field for each option, annotated with it, and its default as the value. Options that the
    command names as parameters are passed to it; all of them are in its context's `params`.
    """
    options = [
        Parameter(name, Parameter.KEYWORD_ONLY, default=getattr(group, name, Parameter.empty), annotation=hint)
        for group in groups
        for name, hint in get_type_hints(group, include_extras=True).items()
    ]

    def decorate(command: Callable[..., Result]) -> Callable[..., Result]:
        passed = signature(command).parameters
        own = [each.replace(kind=Parameter.KEYWORD_ONLY) for each in passed.values()]
        parameters = [each for each in own if each.name not in option_names(*groups)] + options

        @wraps(command)
        def run(**values: Any) -> Result:
            return command(**{name: values[name] for name in passed})

        run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    return decorate
