"""Exceptions that end a command without a traceback."""

import signal


class UserError(Exception):
    """A mistake in the user's input: what is wrong, where, and what to do.

    The command line prints it as one line and exits with status 2; a traceback is kept for bugs.
    """

    def __init__(self, what: str, *, where: object = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, str(where), fix
        super().__init__(str(self))

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        return " ".join((f"{line}; {self.fix}" if self.fix else line).split())


class StoppedError(Exception):
    """A signal ended the training after its state had been saved."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number

    @property
    def status(self) -> int:
        """The exit status that shells expect: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.number


def first_line(error: BaseException) -> str:
    """The first line of another library's error message, at most 120 characters; the error's type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
