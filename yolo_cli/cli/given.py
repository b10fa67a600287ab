"""Which options were written on the command line, and which are defaults."""

import typer


def given_options(context: typer.Context) -> frozenset[str]:
    """Names of the options that a command was given."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return frozenset(name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE")
