"""Finding the linear maps of a function: which equations of its jaxpr multiply by a parameter, and what else does.

Parameters are followed through rearrangements (reshape, transpose, slice, change of type), calls, rematerialised
blocks and scans. A leaf that is reached in any other way (a norm's scale, a table added to activations, a product of
two parameters) is noted with the reason.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from interp.ekfac import sites as forms
from interp.ekfac.sites import Frame, Site, View, lift

CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr", "remat2": "jaxpr"}
"""Primitives that call a jaxpr once with their operands, and the parameter which holds it."""
REARRANGEMENTS = {"reshape", "transpose", "convert_element_type", "squeeze", "expand_dims", "slice", "copy", "copy_p"}
TAG = "relic linear map: "
"""What the name of a tagged call begins with."""


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """A value that is a rearranged parameter leaf; ``view`` has the sliced scans' axes in front."""

    index: int
    view: View
    frames: tuple[Frame, ...] = ()
    expanded: bool = False
    """Whether entries of the leaf were repeated by broadcasting."""

    def then(self, op: View, expanded: bool = False) -> "_Leaf":
        levels, view = sum(frame.stacked for frame in self.frames), self.view
        return dataclasses.replace(
            self, view=lambda leaf: lift(op, levels)(view(leaf)), expanded=self.expanded or expanded
        )


@dataclasses.dataclass(frozen=True)
class _Result:
    """A value that is a site's result, reshaped or transposed; a bias may yet be added to it."""

    path: tuple[int, ...]
    back: View = lambda array: array
    """From this value's axes to the result's."""


@dataclasses.dataclass
class Findings:
    """The sites of a function by path, and the leaves used in other ways with the reason."""

    sites: dict[tuple[int, ...], Site] = dataclasses.field(default_factory=dict)
    others: dict[int, str] = dataclasses.field(default_factory=dict)
    used: set[int] = dataclasses.field(default_factory=set)
    tags: dict[str, bool] = dataclasses.field(default_factory=dict)
    """Names of tagged calls, and whether a site was found inside."""


def find(closed_jaxpr: Any, leaves: int) -> Findings:
    """The findings of a jaxpr whose first ``leaves`` inputs are the parameters."""
    findings = Findings()
    values = [_Leaf(i, lambda leaf: leaf) for i in range(leaves)]
    rest = [None] * (len(closed_jaxpr.jaxpr.invars) - leaves)
    for value in _walk(findings, closed_jaxpr.jaxpr, [*values, *rest], (), (), None):
        _note(findings, [value], "is itself an output")
    return findings


def _walk(findings: Findings, jaxpr: Any, values: Sequence[Any], path, frames, tag) -> list[Any]:
    """Follows the values of the inputs through the equations; returns those of the outputs."""
    known: dict[Any, Any] = {var: value for var, value in zip(jaxpr.invars, values, strict=True) if value is not None}
    uses = Counter(v for eqn in jaxpr.eqns for v in eqn.invars if not isinstance(v, Literal))
    uses.update(v for v in jaxpr.outvars if not isinstance(v, Literal))

    def read(var):
        return None if isinstance(var, Literal) else known.get(var)

    for index, eqn in enumerate(jaxpr.eqns):
        operands = [read(var) for var in eqn.invars]
        if all(operand is None for operand in operands) and eqn.primitive.name not in {*CALLS, "scan"}:
            continue
        # A bias may be added only to a result that goes nowhere else.
        operands = [
            None if isinstance(value, _Result) and uses[var] > 1 else value
            for var, value in zip(eqn.invars, operands, strict=True)
        ]
        for value in operands:
            if isinstance(value, _Leaf):
                findings.used.add(value.index)
        outs = _step(findings, eqn, operands, (*path, index), frames, tag)
        known.update({var: out for var, out in zip(eqn.outvars, outs, strict=True) if out is not None})
    return [read(var) for var in jaxpr.outvars]


def _step(findings: Findings, eqn: Any, operands: list[Any], path, frames, tag) -> list[Any]:
    name = eqn.primitive.name
    nothing = [None] * len(eqn.outvars)
    if name in CALLS:
        return _call(findings, eqn, operands, path, frames, tag)
    if name == "scan":
        return _scan(findings, eqn, operands, path, frames, tag)
    if name in REARRANGEMENTS or name == "broadcast_in_dim":
        return [_rearranged(findings, eqn, operands[0])]
    if name == "add" and _takes_bias(findings, eqn, operands):
        return nothing
    site = _site(eqn, operands, path, frames, tag)
    if site is None:
        _note(findings, operands, _reason(eqn, operands))
        return nothing
    findings.sites[path] = site
    if tag is not None:
        findings.tags[tag] = True
    return [_Result(path)]


def _reason(eqn: Any, operands: list[Any]) -> str:
    if eqn.primitive.name == "dot_general" and all(isinstance(value, _Leaf) for value in operands):
        return "is multiplied by another parameter"
    return f"is used by {eqn.primitive.name}"


def _note(findings: Findings, values: Sequence[Any], reason: str) -> None:
    for value in values:
        if isinstance(value, _Leaf):
            findings.others.setdefault(value.index, reason)


def _call(findings: Findings, eqn: Any, operands, path, frames, tag) -> list[Any]:
    inner = eqn.params[CALLS[eqn.primitive.name]]
    name = str(eqn.params.get("name", ""))
    if name.startswith(TAG):
        tag = name.removeprefix(TAG)
        findings.tags.setdefault(tag, False)
    return _walk(findings, getattr(inner, "jaxpr", inner), operands, path, frames, tag)


def _scan(findings: Findings, eqn: Any, operands, path, frames, tag) -> list[Any]:
    consts, carry, length = eqn.params["num_consts"], eqn.params["num_carry"], eqn.params["length"]
    _note(findings, operands[consts : consts + carry], "is carried by a scan")

    def entered(value, stacked):
        return _entered(value, Frame(length, stacked)) if isinstance(value, _Leaf) else None

    inner = [entered(value, False) for value in operands[:consts]]
    inner += [None] * carry
    inner += [entered(value, True) for value in operands[consts + carry :]]
    around = (*frames, Frame(length, False))
    for value in _walk(findings, eqn.params["jaxpr"].jaxpr, inner, path, around, tag):
        _note(findings, [value], "is an output of a scan")
    return [None] * len(eqn.outvars)


def _entered(value: _Leaf, frame: Frame) -> _Leaf:
    return dataclasses.replace(value, frames=(*value.frames, frame))


def _rearranged(findings: Findings, eqn: Any, value: Any) -> Any:
    before, after = eqn.invars[0].aval, eqn.outvars[0].aval
    same_size = math.prod(before.shape) == math.prod(after.shape)
    if isinstance(value, _Result):
        return _rearranged_result(eqn, value) if same_size else None
    if not jnp.issubdtype(after.dtype, jnp.floating):
        _note(findings, [value], f"is converted to {after.dtype}")
        return None
    op = _as_function(eqn)
    return value.then(op, expanded=eqn.primitive.name == "broadcast_in_dim" and not same_size)


def _rearranged_result(eqn: Any, value: _Result) -> _Result | None:
    shape, back = eqn.invars[0].aval.shape, value.back
    match eqn.primitive.name:
        case "reshape" | "squeeze" | "expand_dims" | "convert_element_type":
            return _Result(value.path, lambda array: back(array.reshape(shape)))
        case "transpose":
            order = np.argsort(eqn.params["permutation"]).tolist()
            return _Result(value.path, lambda array: back(jnp.transpose(array, order)))
        case _:
            return None


def _as_function(eqn: Any) -> View:
    if eqn.primitive.name == "convert_element_type":  # a view rearranges; types are the caller's affair
        return lambda array: array
    return lambda array: eqn.primitive.bind(array, **eqn.params)


def _site(eqn: Any, operands: list[Any], path, frames, tag) -> Site | None:
    """The site that an equation is, if it is one."""
    places = [i for i, value in enumerate(operands) if isinstance(value, _Leaf)]
    form = _form(eqn, places[0]) if len(places) == 1 else None
    if form is None:
        return None
    kernel, inputs, output = form
    leaf: _Leaf = operands[places[0]]
    if leaf.expanded:
        return None
    result = jax.ShapeDtypeStruct(eqn.outvars[0].aval.shape, eqn.outvars[0].aval.dtype)
    is_lookup = eqn.primitive.name == "gather"
    return Site(path, leaf.index, _stacking(leaf, kernel), inputs, output, result, leaf.frames, is_lookup, tag=tag)


def _form(eqn: Any, side: int):
    match eqn.primitive.name:
        case "dot_general":
            return forms.dense(eqn, side)
        case "gather" if side == 0:
            return forms.lookup(eqn)
        case "conv_general_dilated" if side == 1:
            return forms.convolution(eqn)
        case "convolve" if side == 1:
            return forms.stacked_convolution(eqn)
        case _:
            return None


def _stacking(leaf: _Leaf, canonical: View) -> View:
    """A view of the leaf with the sliced scans' axes joined to the canonical form's first."""
    levels = sum(frame.stacked for frame in leaf.frames)

    def view(array):
        viewed = lift(canonical, levels)(leaf.view(array))
        return viewed.reshape(-1, *viewed.shape[levels + 1 :])

    return view


def _takes_bias(findings: Findings, eqn: Any, operands: list[Any]) -> bool:
    """Whether an addition is that of a bias to a site's result; if so the site learns of it."""
    result = next((value for value in operands if isinstance(value, _Result)), None)
    leaf = next((value for value in operands if isinstance(value, _Leaf)), None)
    if result is None or leaf is None:
        return False
    site = findings.sites[result.path]
    if site.bias is not None or site.is_lookup or leaf.frames != site.frames:
        return False
    shape = eqn.outvars[0].aval.shape
    if math.prod(shape) != math.prod(site.result.shape):
        return False

    def as_result(array):
        return site.output(result.back(jnp.broadcast_to(array, shape)))

    operand = next(var.aval for var, value in zip(eqn.invars, operands, strict=True) if value is leaf)
    entries = np.asarray(as_result(jnp.arange(math.prod(operand.shape)).reshape(operand.shape)))
    if (entries != entries[:, :1]).any() or len(np.unique(entries[:, 0])) != entries[:, 0].size:
        return False
    view = _stacking(leaf, lambda array: as_result(array)[:, 0])
    findings.sites[result.path] = dataclasses.replace(site, bias=(leaf.index, view))
    return True
