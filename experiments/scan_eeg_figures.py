"""The tables and figures of ``scan_eeg``, from its records."""


def tables(frame):
    """None yet."""
    return {}


def figures(frame):
    """None yet."""
    return {}
