"""Errors a person can act on: each names what was found where, and the remedy."""


class RelicError(Exception):
    """Base of errors whose message is meant for the user; the command line prints it without a traceback."""


class DataError(RelicError, ValueError):
    """A data file is missing, unreadable or not what its format promises; names file, field and remedy."""


class ConfigError(RelicError, ValueError):
    """A setting or an argument is unknown, of the wrong type or out of range; names what is possible."""


class UnequalShares(ConfigError):  # noqa: N818 - it names what is so, and a smaller number of devices may do
    """A batch cannot be shared equally by so many devices."""


class CheckpointError(RelicError):
    """A checkpoint cannot be written, read or belongs to another run."""


class NonFiniteError(RelicError):
    """Training produced a NaN or infinity; names step, metric and the last good checkpoint."""


class Preempted(RelicError):  # noqa: N818 - it reports an event, not a fault
    """The run was asked to stop (SIGTERM or Ctrl-C) and saved its state first."""
