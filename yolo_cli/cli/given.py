"""What was written on the command line: all of it, and which options are not defaults."""

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from typer.core import TyperCommand

_GIVEN: ContextVar[frozenset[str]] = ContextVar("given", default=frozenset())
_ARGUMENTS: ContextVar[tuple[str, ...]] = ContextVar("arguments", default=())


class RecordingCommand(TyperCommand):
    """A command that remembers, while it runs, which options it was given."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        sources = {name: ctx.get_parameter_source(name) for name in ctx.params}
        given = frozenset(name for name, source in sources.items() if source and source.name == "COMMANDLINE")
        token = _GIVEN.set(given)
        try:
            return super().invoke(ctx)
        finally:
            _GIVEN.reset(token)


def remember_arguments(arguments: Sequence[str]) -> None:
    """Keep the arguments of this process, for others to be started like it."""
    _ARGUMENTS.set(tuple(arguments))


def given_arguments() -> tuple[str, ...]:
    """The arguments that `yolo` was given, in the form that the parser takes."""
    return _ARGUMENTS.get()


def given_options() -> frozenset[str]:
    """Names of the options that the running command was given."""
    return _GIVEN.get()
