"""What is asked of a world with an outcome, outside of the actions' support, with the true answers."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from causal.rep4ex.generators import Outcomes, Sample, confounder, draw, outside
from causal.rep4ex.pools import Case, Code
from causal.rep4ex.second_step import Answers, Ridge, SecondStep
from core.checks import Count, Positive, checked


class Question(NamedTuple):
    """A case with an outcome, actions and rows outside of the support, and the truth of both."""

    case: Case
    outcomes: Outcomes
    y: Float[np.ndarray, " n"]
    """Of the training rows."""
    actions: Float[np.ndarray, "j k"]
    truth: Answers
    """E[Y | do(A = a)]."""
    shifted: Sample
    """Fresh rows with actions outside of the support."""
    given_x: Answers
    """E[Y | X = x, do(A = a)] of these: l(z) + E[U | V], which X and A tell."""

    def step(self, code: Code, settings: Ridge) -> SecondStep:
        """Step 2 on the training rows' codes."""
        return SecondStep.of(code(self.case.sample), self.case.sample.a, self.y, settings)

    def confounded(self, strength: float) -> Float[np.ndarray, " n"]:
        """Y of the training rows as it were if U depended on V with this strength; the truth does not change."""
        world, sample, seed = self.case.world, self.case.sample, self.case.seed
        return self.outcomes.draw(world._replace(design=world.design._replace(confounding=strength)), sample, seed)

    def error(self, found: Answers) -> float:
        """The mean squared error of E[Y | do(A = a)]."""
        return mse(found, self.truth)

    def error_by_distance(self, found: Answers, width: Positive = 0.25) -> dict[float, float]:
        """The same in bands of the action's distance from the support (largest coordinate), by their middles."""
        far = np.abs(self.actions).max(axis=1) - self.case.world.design.gamma
        bands = {low: (far >= low) & (far < low + width) for low in np.arange(0.0, far.max(), width)}
        return {float(low + width / 2): mse(found[x], self.truth[x]) for low, x in bands.items() if x.any()}


@checked
def ask(case: Case, outcomes: Outcomes, actions: Float[np.ndarray, "j k"], rows: Count, outer: Positive) -> Question:
    """A question about actions and about fresh rows whose actions are uniform outside of the support, up to ``outer``.

    They and the rows' latents come from streams of the case's seed.
    """
    design, y = case.world.design, outcomes.draw(case.world, case.sample, case.seed)
    others = outside(case.seed, 2 * rows, design.k, design.gamma, outer)[:rows]
    shifted = draw(case.world, np.random.default_rng([case.seed, 2]), len(others), others)
    given_x = outcomes.structural(shifted.z) + confounder(case.world, shifted)
    return Question(case, outcomes, y, actions, outcomes.under_intervention(case.world, actions), shifted, given_x)


def mse(found: Float[np.ndarray, " j"], truth: Float[np.ndarray, " j"]) -> float:
    """Mean squared error."""
    return float(np.mean((found - truth) ** 2))
