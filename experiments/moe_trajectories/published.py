"""Published numbers of ``moe_trajectories``: the authors' stored outputs on their example, and nlpsem's stored fits."""

from experiments.lab import Published

OPENMX: dict[tuple[int, str], tuple[float, float, float]] = {
    (1, "intercept"): (99.70118, 0.33728, 0.344),
    (1, "slope 1"): (-5.11243, 0.08008, 0.092),
    (1, "slope 2"): (-2.65480, 0.09947, 0.136),
    (1, "knot"): (3.51872, 0.03223, 0.034),
    (1, "variance of intercept"): (22.6906, 2.1942, 2.247),
    (1, "variance of slope 1"): (0.8535, 0.0978, 0.107),
    (1, "variance of slope 2"): (0.8762, 0.1212, 0.155),
    (1, "ex1 on intercept"): (0.6425, 0.3670, 0.404),
    (1, "ex1 on slope 1"): (0.1293, 0.0822, 0.092),
    (1, "ex1 on slope 2"): (0.1441, 0.0843, 0.088),
    (1, "ex2 on intercept"): (1.1303, 0.3272, 0.329),
    (1, "ex2 on slope 1"): (0.2413, 0.0699, 0.078),
    (1, "ex2 on slope 2"): (0.3537, 0.0746, 0.070),
    (1, "residual variance"): (1.01326, 0.03826, 0.042),
    (2, "intercept"): (99.6716, 0.3229, 0.331),
    (2, "slope 1"): (-4.8170, 0.0731, 0.081),
    (2, "slope 2"): (-3.3811, 0.0760, 0.086),
    (2, "knot"): (5.55855, 0.04943, 0.046),
    (2, "residual variance"): (1.02409, 0.04113, 0.046),
    (2, "intercept on class"): (-0.0947, 0.1733, 0.233),
    (2, "gx1 on class"): (0.4399, 0.1245, 0.130),
    (2, "gx2 on class"): (0.5525, 0.1439, 0.166),
}
"""Estimate and standard error by OpenMx, sandwich standard error by Mplus: full mixture on the example [code]."""
LOG_L = -11458.347
ONE_CLASS, TWO_CLASSES = 31347.39262072, 31171.41294

EXAMPLE_SOURCE, NLPSEM = "OpenMx output, Part2 of Extension_projects", "nlpsem's stored fits"
PUBLISHED = (
    Published("example", "full MoE", "log L", LOG_L, EXAMPLE_SOURCE, "code"),
    Published("mathematics", "1 classes", "-2 log L", ONE_CLASS, NLPSEM, "code"),
    Published("mathematics", "2 classes", "-2 log L", TWO_CLASSES, NLPSEM, "code"),
    Published("mathematics", "3 classes", "-2 log L", 31008.29884, NLPSEM, "code"),
)
