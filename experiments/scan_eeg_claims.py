"""What must be shown of ``scan_eeg``, and how its records are judged."""

CLAIMS = ()
