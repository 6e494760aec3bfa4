"""Every meta-learner fitted once to all units in full batches, without folds: a quick comparison on small tables."""

from pathlib import Path
from typing import Any

import optax
from jaxtyping import Array, Float

from causal.treatment_effects.metalearners import dr_target, effect_of, r_target, x_effect, x_targets
from causal.treatment_effects.networks import (
    Scalar,
    SingleNet,
    TarNet,
    TNet,
    Trunk,
    Units,
    outcome_learner,
    regression_learner,
)
from core.checks import Count, OpenFraction, Positive, checked
from core.fit import fit


@checked
def plain_effects(
    key: Any, units: Units, x: Float[Array, "n k"], trunk: Trunk, propensity: OpenFraction, steps: Count = 1_000,
    learning_rate: Positive = 3e-3, workdir: Path | None = None,
) -> dict[str, Float[Array, " n"]]:  # fmt: skip
    """Effects at x by T-, S-, X-, DR- and R-learner and TARNet, by their names.

    X-, DR- and R-learner take TARNet's outcomes of the units themselves; :class:`MetaLearner` takes those of folds.
    Each training has a folder in ``workdir``.
    """
    tx = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

    def fitted(name: str, learner: Any, batch: Any) -> Any:
        folder = workdir and workdir / name
        return fit(learner, batch, key=key, steps=steps, chunk=250, workdir=folder).state.params

    found: dict[str, Any] = {}
    own: Any = None
    for name, module in {"T-learner": TNet(trunk), "S-learner": SingleNet(trunk), "TARNet": TarNet(trunk)}.items():
        params = fitted(name, outcome_learner(module, tx), units)
        outcomes: Any = module.apply(params, x)
        found[name] = effect_of(outcomes)
        own = module.apply(params, units.x) if name == "TARNet" else own
    scalar = Scalar(trunk)

    def regressed(name: str, target: Any) -> Any:
        return scalar.apply(fitted(name, regression_learner(scalar, tx), target), x)

    targets = zip(("X-controls", "X-treated"), x_targets(units, own), strict=True)
    of_controls, of_treated = (regressed(name, target) for name, target in targets)
    found["X-learner"] = x_effect(of_controls, of_treated, propensity)
    found["DR-learner"] = regressed("DR", dr_target(units, own, propensity))
    found["R-learner"] = regressed("R", r_target(units, own, propensity))
    return found
