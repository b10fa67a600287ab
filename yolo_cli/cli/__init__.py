"""The command line: one file a command, options → config → one call. The only part that knows typer and tqdm."""
