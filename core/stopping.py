"""Which signals ask a process to stop."""

import signal


def stop_signals() -> tuple[signal.Signals, ...]:
    """SIGTERM, Ctrl-C, and the closing of a terminal (SIGHUP) unless that is ignored, as under ``nohup``."""
    asked = [signal.SIGTERM, signal.SIGINT]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        asked.append(signal.SIGHUP)
    return tuple(asked)
