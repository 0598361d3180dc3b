"""Turns functions into commands: settings become flags, and errors become exit codes."""

import inspect
import os
from collections.abc import Callable
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from rich.console import Console

from constellate import JobFailed, Refused, Unreachable
from serve_app.config import PREFIX, Settings, SettingsError
from serve_app.errors import InvalidRequest, ServiceError, Unavailable

FAILED = 1
USAGE = 2
UNAVAILABLE = 3
INTERRUPTED = 130

INSTALL_SERVICE = "pip install 'constellate[service]'"
"""`pip install constellate` installs the client and what the commands need to ask a running service."""

ADDRESS = ("host", "port", "api_key", "data_dir")
"""The settings that identify the service to use."""


EPILOG = """Exit codes: 0 done, 1 the job failed, 2 wrong usage, 3 service or model not available, 130 interrupted.

Environment: every flag under Settings has the variable named beside it; the flag counts where both are given."""


class UsageError(Exception):
    """The command line cannot be carried out; the message says how to correct it."""


class CommandFailed(Exception):
    """A command did not succeed; the message says how far it came."""


_FORESEEN = (UsageError, CommandFailed, JobFailed, SettingsError, Unreachable, Refused, ServiceError)


def add_command(app: typer.Typer, run: Callable[..., None], *flags: str, name: str | None = None) -> None:
    """Make a command of `run(settings, …)`.

    Args:
        app: the application that gets the command.
        run: the function; its first parameter gets `Settings`, the others are the command's own. Its docstring is the
            help text.
        flags: the names of the settings that this command accepts as flags.
        name: the name of the command, if it is not the function's.
    """

    def command(**values: Any) -> None:
        chosen = {flag: values.pop(flag) for flag in flags}
        try:
            run(Settings.from_environment(os.environ, **chosen), **values)
        except BrokenPipeError:
            raise  # the reader of our output has closed it; typer then ends without a message
        except (*_FORESEEN, OSError) as error:
            _say(str(error))
            raise typer.Exit(exit_code(error)) from None
        except ModuleNotFoundError as missing:
            _say(f"this needs {missing.name}, which comes with the service: {INSTALL_SERVICE}")
            raise typer.Exit(UNAVAILABLE) from None

    own = list(inspect.signature(run, eval_str=True).parameters.values())[1:]
    settings = [_setting_flag(flag) for flag in flags]
    positional = [p for p in own if p.default is p.empty]
    optional = [p for p in own if p.default is not p.empty]
    command.__signature__ = inspect.Signature([*positional, *optional, *settings])  # type: ignore[attr-defined]
    command.__doc__ = run.__doc__
    app.command(name or run.__name__, epilog=EPILOG)(command)


def _say(message: str) -> None:
    Console(stderr=True, soft_wrap=True).print(f"constellate: {message}", markup=False, highlight=False)


def exit_code(error: Exception) -> int:
    """The exit code for an error: 1 failed, 2 wrong usage, 3 service or model not available."""
    match error:
        case UsageError() | SettingsError() | InvalidRequest():
            return USAGE
        case Unreachable() | Unavailable() | Refused(status=503):
            return UNAVAILABLE
        case Refused(status=status) if 400 <= status < 500 and status != 409:
            return USAGE
        case _:
            return FAILED


def _setting_flag(name: str) -> inspect.Parameter:
    """The flag of a setting. All flags are text, because `Settings` parses flags and variables in the same way."""
    field = Settings.model_fields[name]
    default = os.pathsep.join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
    option = typer.Option(
        f"--{name.replace('_', '-')}",
        help=f"{field.description} [{PREFIX}{name.upper()}]",
        metavar=_metavar(field.annotation),
        show_default=False if default is None else str(default),
        rich_help_panel="Settings",
    )
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )


def _metavar(annotation: object) -> str:
    if get_origin(annotation) is Literal:
        return "|".join(get_args(annotation))
    names = {int: "NUMBER", float: "NUMBER", int | None: "NUMBER", float | None: "NUMBER"}
    return names.get(annotation, "TEXT")  # type: ignore[call-overload, no-any-return]
