"""The arguments of this process, and which options of the running command were given."""

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from typer.core import TyperCommand

_GIVEN: ContextVar[frozenset[str]] = ContextVar("given", default=frozenset())
_ARGUMENTS: ContextVar[tuple[str, ...]] = ContextVar("arguments", default=())


class RecordingCommand(TyperCommand):
    """A command that records which options it was given, for `given_options`."""

    def invoke(self, ctx: Any) -> Any:
        sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
        given = frozenset(name for name, source in sources.items() if source and source.name == "COMMANDLINE")
        token = _GIVEN.set(given)
        try:
            return super().invoke(ctx)
        finally:
            _GIVEN.reset(token)


def remember_arguments(arguments: Sequence[str]) -> None:
    """Record the arguments of this process, with which `launch` starts the processes of a distributed job."""
    _ARGUMENTS.set(tuple(arguments))


def given_arguments() -> tuple[str, ...]:
    """The recorded arguments, as `normalize` returned them."""
    return _ARGUMENTS.get()


def given_options() -> frozenset[str]:
    """Names of the options that were given on the command line, as opposed to defaults."""
    return _GIVEN.get()
