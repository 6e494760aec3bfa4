"""What is measured for ``jepa_linear``."""
