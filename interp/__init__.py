"""Interpreting models and attributing their behaviour to training data."""
