"""Step 2 of ``rep4ex`` on the true latents: what the control function and the support are worth."""

import jax.numpy as jnp
import numpy as np

from causal import rep4ex as rep
from experiments.lab.system import Context
from experiments.rep4ex.config import Config
from experiments.rep4ex.study.extrapolation import MSE, ORACLE, OUTER, mse
from experiments.rep4ex.study.outcomes import second_step, uncontrolled

STEEP = rep.Outcomes(frequency=1.0)


def oracle(config: Config, context: Context) -> None:
    """Step 2 on the true latents: by support, with and without the control function, by confounding."""
    for repeat in range(config.oracle_seeds):
        for d in (1, 2):
            for gamma in config.supports:
                note_oracle(config, context, repeat, rep.Design(d, config.observed, 1.2, gamma), STEEP)
        for c in (0.0, 1.5):
            note_oracle(config, context, repeat, rep.Design(2, config.observed, confounding=c), rep.Outcomes())


def note_oracle(config: Config, context: Context, repeat: int, design: rep.Design, outcomes: rep.Outcomes) -> None:
    """One world: errors outside of the support."""
    steep = outcomes == STEEP
    world, sample, y = rep.gen2(1_000 + repeat, config.rows if steep else config.outcome_rows, design, outcomes)
    actions = rep.outside(repeat, config.actions, design.d, design.gamma, 2.5 if steep else OUTER)
    truth, step = outcomes.under_intervention(world, actions), second_step(config, sample.z, sample.a, y)
    found = {
        ORACLE: step.effect(actions),
        "oracle, no control function": uncontrolled(step).effect(actions),
        "OLS on A": direct_linear(sample.a, y, actions),
    }
    place = {"part": "oracle", "gamma": design.gamma, "alpha": design.alpha, "confounding": design.confounding}
    for method, value in found.items():
        context.record(
            dataset=f"oracle, d = {design.d}", method=method, metric=MSE, seed=repeat, value=mse(value, truth), **place
        )


def direct_linear(a: np.ndarray, y: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """Least squares of Y on (1, A)."""
    rows = rep.Rows(jnp.asarray(a, jnp.float32), jnp.asarray(y, jnp.float32))
    return np.asarray(rep.linear(rows, jnp.asarray(actions, jnp.float32)))
