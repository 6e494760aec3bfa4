"""Running a jaxpr with zeros added to the results of its sites, and the sites' inputs brought out.

The derivative of anything with respect to an added zero is its derivative with respect to the site's result; the sum
itself is never computed. Calls
are entered only where a site lies inside; everything else is evaluated as it stands, with its own derivative rules.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.extend.core import Literal

from interp.ekfac.analysis import CALLS
from interp.ekfac.sites import Site

Path = tuple[int, ...]
Sites = Mapping[Path, Site]
Arrays = Mapping[Path, Any]


def evaluate(
    jaxpr: Any, consts: Sequence[Any], args: Sequence[Any], sites: Sites, perturbations: Arrays, path: Path = ()
):
    """Outputs of a jaxpr, and the canonical inputs of its sites (scans' axes in front).

    Args:
      jaxpr: an open jaxpr.
      consts: values of its constants.
      args: values of its inputs.
      sites: the sites by path, all of them.
      perturbations: what to add to the results of the sites, by path.
      path: where this jaxpr lies.
    """
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, consts, strict=True))
    values.update(zip(jaxpr.invars, args, strict=True))
    inputs: dict[Path, Any] = {}

    def read(var):
        return var.val if isinstance(var, Literal) else values[var]

    for index, eqn in enumerate(jaxpr.eqns):
        here = (*path, index)
        operands = [read(var) for var in eqn.invars]
        if here in sites:
            outs = [plus_zero(_bind(eqn, operands)[0], perturbations[here])]
            inputs[here] = sites[here].inputs(*operands)
        elif any(site[: len(here)] == here for site in sites):
            outs, inner = _enter(eqn, operands, sites, perturbations, here)
            inputs.update(inner)
        else:
            outs = _bind(eqn, operands)
        values.update(zip(eqn.outvars, outs, strict=True))
    return [read(var) for var in jaxpr.outvars], inputs


@jax.custom_jvp
def plus_zero(x: Any, zero: Any) -> Any:
    """``x + zero`` to differentiation; no memory is read for the zeros."""
    return x


@plus_zero.defjvp
def _plus_zero_jvp(primals, tangents):
    x, zero = primals
    x_dot, zero_dot = tangents
    return plus_zero(x, zero), x_dot + zero_dot


def _bind(eqn: Any, operands: Sequence[Any]) -> list[Any]:
    with eqn.ctx.manager:
        outs = eqn.primitive.bind(*operands, **eqn.primitive.get_bind_params(eqn.params))
    return outs if eqn.primitive.multiple_results else [outs]


def _enter(eqn: Any, operands: Sequence[Any], sites: Sites, perturbations: Arrays, here: Path):
    within = {site: value for site, value in perturbations.items() if site[: len(here)] == here}
    if eqn.primitive.name == "scan":
        return _scan(eqn, operands, sites, within, here)
    inner = eqn.params[CALLS[eqn.primitive.name]]
    consts = getattr(inner, "consts", ())
    jaxpr = getattr(inner, "jaxpr", inner)

    def call(args, perturbations):
        return evaluate(jaxpr, consts, args, sites, perturbations, here)

    if eqn.primitive.name == "remat2":
        call = jax.checkpoint(call, policy=eqn.params["policy"], prevent_cse=eqn.params["prevent_cse"])
    return call(list(operands), within)


def _scan(eqn: Any, operands: Sequence[Any], sites: Sites, perturbations: Arrays, here: Path):
    p = eqn.params
    consts, carry, xs = (
        list(operands[: p["num_consts"]]),
        list(operands[p["num_consts"] : p["num_consts"] + p["num_carry"]]),
        list(operands[p["num_consts"] + p["num_carry"] :]),
    )

    def body(carry, slices):
        xs, perturbations = slices
        outs, inputs = evaluate(p["jaxpr"].jaxpr, p["jaxpr"].consts, [*consts, *carry, *xs], sites, perturbations, here)
        return outs[: len(carry)], (outs[len(carry) :], inputs)

    carry, (ys, inputs) = jax.lax.scan(
        body, carry, (xs, perturbations), length=p["length"], reverse=p["reverse"], unroll=p["unroll"]
    )
    return [*carry, *ys], inputs
