"""Worlds with known truth: actions shift latents linearly, and only an injective transform of the latents is seen.

    Z = alpha M0 A + V,    X = g0(Z),    Y = l(Z) + U,    (U, V) independent of A

A is uniform on [-gamma, gamma]^k and V ~ N(0, Sigma). Every draw comes from ``numpy.random.default_rng`` in a fixed
order, so that a world is a function of its seed.
"""

import itertools
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from core.checks import Count, Natural, Positive, checked
from core.errors import ConfigError

Law = Literal["normal", "laplace", "bounded"]
SLOPE = 0.2
"""Of the leaky ReLU of g0."""


class Design(NamedTuple):
    """What a world is drawn from, beside its seed."""

    d: int = 2
    m: int = 10
    alpha: float = 2.0
    """Strength of the intervention."""
    gamma: float = 1.0
    """Half the width of the actions' support."""
    law: Law = "normal"
    """Of V, with covariance Sigma; the bounded one violates the assumption of full support."""
    bend: float = 0.0
    """Of the actions' effect: Z = alpha M0 (A + bend A^2) + V; 0 is the assumption of linearity."""
    noise: float = 0.0
    """Of X, in its standard deviations; 0 is the assumption that Z is a function of X."""
    confounding: float = 1.5
    """c in U = c d^(-1/2) sum_j V_j + 0.3 N(0, 1)."""
    more: int = 0
    """Actions beyond as many as latents, k - d."""

    @property
    def k(self) -> int:
        """Number of actions."""
        return self.d + self.more


class World(NamedTuple):
    """The parameters of a drawn world."""

    design: Design
    M0: Float[np.ndarray, "d k"]
    Sigma: Float[np.ndarray, "d d"]
    layers: tuple[Float[np.ndarray, "inputs outputs"], ...]
    """Of g0; none for images."""

    def mean(self, a: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n d"]:
        """E[Z | do(A = a)]."""
        return self.design.alpha * (a + self.design.bend * a**2) @ self.M0.T

    def idle(self) -> Float[np.ndarray, " k"]:
        """A direction of unit length in which actions do not move the latents; there is one where k > d."""
        return np.linalg.svd(self.M0)[2][-1]


class Sample(NamedTuple):
    """Rows of a world; X alone with A (and Y) is observed."""

    a: Float[np.ndarray, "n k"]
    v: Float[np.ndarray, "n d"]
    z: Float[np.ndarray, "n d"]
    x: Float[np.ndarray, "n m"]


@checked
def gen1(seed: Natural, n: Count, design: Design) -> tuple[World, Sample]:
    """A world whose g0 is an injective network of three layers, and ``n`` rows of it.

    Draws, in order: a block that is discarded, the two orthogonal factors of M0 and its singular values, the factor of
    Sigma, the layers of g0, A, V, and the noise on X where there is some.
    """
    check(n, design)
    rng, d = np.random.default_rng(seed), design.d
    rng.uniform(-2, 2, (d, d))
    left, right = (np.linalg.qr(rng.standard_normal((side, side)))[0] for side in (d, design.k))
    M0 = left * rng.uniform(0.8, 1.6, d) @ right[:d]
    L = rng.standard_normal((d, d))
    Sigma = L @ L.T / d + 0.5 * np.eye(d)
    widths = (d, design.m, design.m, design.m)
    layers = tuple(_layer(rng, *shape) for shape in itertools.pairwise(widths))
    world = World(design, M0, Sigma * d / np.trace(Sigma), layers)
    return world, draw(world, rng, n)


@checked
def gen3(seed: Natural, n: Count, design: Design) -> tuple[World, Sample]:
    """The same latents in two dimensions, seen as the place of a Gaussian bump in an image of 32 x 32, flattened."""
    if design.d != 2:
        raise ConfigError(f"an image shows the place of one bump, so d must be 2, not {design.d}")
    world, _ = gen1(seed, 1, design)
    images = world._replace(layers=())
    return images, draw(images, np.random.default_rng([seed, 3]), n)


def check(n: int, design: Design) -> None:
    """Raises :class:`core.errors.ConfigError` where no world can be drawn."""
    if n < 1 or design.d < 1 or design.more < 0 or design.gamma <= 0 or design.noise < 0:
        raise ConfigError(
            f"a world needs rows, latents, as many actions, a support and noise >= 0, not n = {n} of {design}"
        )
    if design.m < design.d:
        raise ConfigError(f"{design.d} latents are not a function of {design.m} observed coordinates; raise m")
    if design.law not in ("normal", "laplace", "bounded"):
        raise ConfigError(f"there is no law {design.law!r} of V; possible: normal, laplace, bounded")


def _layer(rng: np.random.Generator, inputs: int, outputs: int) -> Float[np.ndarray, "inputs outputs"]:
    left, _, right = np.linalg.svd(rng.standard_normal((inputs, outputs)), full_matrices=False)
    return left * rng.uniform(0.7, 1.3, min(inputs, outputs)) @ right


@checked
def draw(world: World, rng: np.random.Generator, n: Count, a: Float[np.ndarray, "n k"] | None = None) -> Sample:
    """``n`` rows; A uniform on its support where it is not given."""
    design = world.design
    if a is None:
        a = rng.uniform(-design.gamma, design.gamma, (n, design.k))
    v = _standard(rng, design.law, (n, design.d)) @ np.linalg.cholesky(world.Sigma).T
    z = world.mean(a) + v
    x = observed(world, z)
    if design.noise:
        x = x + design.noise * x.std(axis=0) * rng.standard_normal(x.shape)
    return Sample(a, v, z, x)


def _standard(rng: np.random.Generator, law: Law, shape: tuple[int, int]) -> Float[np.ndarray, "n d"]:
    if law == "laplace":
        return rng.laplace(size=shape) / np.sqrt(2)
    return rng.uniform(-np.sqrt(3), np.sqrt(3), shape) if law == "bounded" else rng.standard_normal(shape)


def observed(world: World, z: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n m"]:
    """g0(z)."""
    if not world.layers:
        return bumps(z).reshape(len(z), -1)
    x = z
    for i, layer in enumerate(world.layers):
        x = x @ layer
        if i + 1 < len(world.layers):
            x = np.where(x > 0, x, SLOPE * x)
    return x


@checked
def bumps(z: Float[np.ndarray, "n 2"], size: Count = 32, scale: Positive = 1.8, width: Positive = 3.0):
    """[n, size, size]: a Gaussian bump at the middle + scale z, in pixels."""
    grid = np.arange(size) - (size - 1) / 2
    rows, columns = (np.exp(-((grid - scale * z[:, j, None]) ** 2) / (2 * width**2)) for j in range(2))
    return (rows[:, :, None] * columns[:, None, :]).astype(np.float32)


class Outcomes(NamedTuple):
    """Y = d^(-1/2) sum_j (0.3 Z_j + bent sin(frequency Z_j)) + direct <A, idle direction> + U."""

    bent: float = 2.0
    frequency: float = 0.6
    direct: float = 0.0
    """An effect of actions on Y beside that through Z, which instruments must not have; only where k > d."""

    def structural(self, z: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """l(z)."""
        return (0.3 * z + self.bent * np.sin(self.frequency * z)).sum(axis=1) / np.sqrt(z.shape[1])

    def under_intervention(self, world: World, a: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " n"]:
        """E[Y | do(A = a)] in closed form, for normal V: a sine's mean shrinks by exp(-frequency^2 Sigma_jj / 2)."""
        if world.design.law != "normal":
            raise ConfigError(f"the mean of Y is in closed form for normal V only, not {world.design.law}")
        mean, shrunk = world.mean(a), np.exp(-(self.frequency**2) * np.diag(world.Sigma) / 2)
        terms = 0.3 * mean + self.bent * np.sin(self.frequency * mean) * shrunk
        return terms.sum(axis=1) / np.sqrt(world.design.d) + self._beside(world, a)

    def _beside(self, world: World, a: Float[np.ndarray, "j k"]) -> Any:
        if not self.direct:
            return 0.0
        if not world.design.more:
            raise ConfigError("a direct effect beside the latents needs more actions than latents; raise Design.more")
        return self.direct * (a @ world.idle())

    def simulated(
        self, world: World, v: Float[np.ndarray, "n d"], a: Float[np.ndarray, "j k"]
    ) -> Float[np.ndarray, " j"]:
        """E[Y | do(A = a)] as a mean over draws of V, for any law."""
        through = np.array([self.structural(mean + v).mean() for mean in world.mean(a)])
        return through + self._beside(world, a)

    @checked
    def draw(self, world: World, sample: Sample, seed: Natural) -> Float[np.ndarray, " n"]:
        """Y; its own noise comes from ``default_rng(seed + 999)``."""
        own = 0.3 * np.random.default_rng(seed + 999).standard_normal(len(sample.z))
        return self.structural(sample.z) + self._beside(world, sample.a) + confounder(world, sample) + own


def confounder(world: World, sample: Sample) -> Float[np.ndarray, " n"]:
    """E[U | V]."""
    return world.design.confounding * sample.v.sum(axis=1) / np.sqrt(world.design.d)


DEFAULT = Outcomes()


@checked
def gen2(
    seed: Natural, n: Count, design: Design, outcomes: Outcomes = DEFAULT
) -> tuple[World, Sample, Float[np.ndarray, " n"]]:
    """:func:`gen1` with a confounded outcome."""
    world, sample = gen1(seed, n, design)
    return world, sample, outcomes.draw(world, sample, seed)


@checked
def outside(seed: Natural, count: Count, k: Count, inner: float, outer: float) -> Float[np.ndarray, "kept k"]:
    """Actions uniform on [-outer, outer]^k, those of [-inner, inner]^k left out."""
    drawn = np.random.default_rng(seed).uniform(-outer, outer, (count, k))
    return drawn[np.abs(drawn).max(axis=1) > inner]
