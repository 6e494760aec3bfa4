"""Causal inference and causal representation learning."""
