"""How the cost of the stages grows, from the compiled programs: no clock."""

import dataclasses

import numpy as np
import pytest

from interp.ekfac.costs import Size, Stages

BASE = Size(width=32, depth=1, length=16, examples=32)


def slope(axis, values):
    """Of log operations in the log of one axis."""
    operations = [Stages(dataclasses.replace(BASE, **{axis: value})).operations() for value in values]
    return float(np.polyfit(np.log(values), np.log(operations), 1)[0])


def test_a_pass_is_linear_in_examples_and_length_and_quadratic_in_width(record_property):
    found = {
        "examples": slope("examples", (32, 64)),
        "length": slope("length", (32, 64)),
        "width": slope("width", (128, 256)),
    }
    record_property("value", ", ".join(f"{axis} {value:.2f}" for axis, value in found.items()))
    assert found["examples"] == pytest.approx(1, abs=0.01)
    assert found["length"] == pytest.approx(1, abs=0.15)  # attention itself is quadratic
    assert found["width"] == pytest.approx(2, abs=0.15)


def test_the_memory_of_scoring_does_not_depend_on_the_number_of_training_examples(record_property):
    few, many = (Stages(dataclasses.replace(BASE, examples=n)).temporary_bytes() for n in (64, 1024))
    record_property("value", f"{few / 1e6:.2f} MB for 64 sequences, {many / 1e6:.2f} MB for 1,024")
    scores_and_rows = 4 * 8 * 1024 + 4 * 1024  # the scores themselves, once more at most, and the order of rows
    assert many - few <= 2 * scores_and_rows
