"""Which options were written on the command line, and which are defaults."""

from contextvars import ContextVar
from typing import Any

from typer.core import TyperCommand

_GIVEN: ContextVar[frozenset[str]] = ContextVar("given", default=frozenset())


class Recorded(TyperCommand):
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


def given_options() -> frozenset[str]:
    """Names of the options that the running command was given."""
    return _GIVEN.get()
