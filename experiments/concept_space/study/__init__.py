"""What is measured for ``concept_space``."""
