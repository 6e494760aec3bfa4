"""The framework."""
