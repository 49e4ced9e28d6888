"""How a command ends other than well."""


class UserError(ValueError):
    """Bad input or configuration.

    The message is one line that names the file or field, what is wrong with it and the remedy.
    The entry decorator (`framework.app`) prints it without a traceback and exits with code 2.
    Any other exception is a bug of ours and keeps its traceback.
    """


class StopAskedError(Exception):
    """A signal asked for an end before the end; all ranks have come to it with everything saved: exit code 75."""
