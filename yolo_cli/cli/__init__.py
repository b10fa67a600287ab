"""The command line: one file per command turns options into a config and runs the command.

Only this package imports typer and tqdm.
"""
