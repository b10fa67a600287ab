"""The version, in a module of its own so that lower layers can write it into files."""

__version__ = "0.1.0"
