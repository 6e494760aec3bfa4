r"""Concept space: where the generations of a conditional diffusion model lie between the concepts it was shown.

Park, Okawa, Lee, Lubana, Tanaka, Emergence of Hidden Capabilities: Exploring Learning Dynamics in Concept Space,
NeurIPS 2024, arXiv 2406.19370. A world has two concepts, z = (z_1, z_2) in {0, 1}^2, or three; a model is trained on
the classes with at most one concept switched (00, 01 and 10) and asked for the others (11). Its point in concept space
is the mean over generations of measured coordinates, 0 at class 0's mean of a concept and 1 at class 1's. Everything
here is pure; times of learning and turns are read off recorded trajectories.
"""

from interp.concept_space.networks import DiscDenoiser, PointDenoiser, Prompt, PromptEmbedding, patched, plain
from interp.concept_space.trajectories import (
    ToyFit,
    Turn,
    accuracy,
    first_time,
    fit_toy,
    joint_accuracy,
    learning_time,
    stereotype,
    toy_path,
    turn,
)
from interp.concept_space.worlds import (
    Disc,
    World,
    centres,
    class_means,
    concept_signal,
    condition,
    coordinates,
    corners,
    draw,
    draw_points,
    draw_values,
    masked,
    measure,
    point_coordinates,
    render,
    render_triangle,
    shown_corners,
    typical,
)

__all__ = [
    "Disc",
    "DiscDenoiser",
    "PointDenoiser",
    "Prompt",
    "PromptEmbedding",
    "ToyFit",
    "Turn",
    "World",
    "accuracy",
    "centres",
    "class_means",
    "concept_signal",
    "condition",
    "coordinates",
    "corners",
    "draw",
    "draw_points",
    "draw_values",
    "first_time",
    "fit_toy",
    "joint_accuracy",
    "learning_time",
    "masked",
    "measure",
    "patched",
    "plain",
    "point_coordinates",
    "render",
    "render_triangle",
    "shown_corners",
    "stereotype",
    "toy_path",
    "turn",
    "typical",
]
