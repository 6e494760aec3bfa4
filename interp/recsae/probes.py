"""Probes: reading and editing a named activation of any Flax model, without changing the model.

A *site* names the output of a method of a submodule. ``call`` is any function that applies the model::

    call = partial(item_scores, module)                    # (params, histories) -> scores
    capture(call, Site(method="query"))(params, histories) # -> scores, the user vectors
    intervene(call, site, edit)(params, histories)         # -> scores with edit(vectors) in the vectors' place

Flax intercepts the method wherever the model calls it; what follows is computed from the edited activation.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import linen as nn
from jaxtyping import Array

from core.checks import checked
from core.errors import ConfigError

Edit = Callable[[Array], Array]
"""``activation -> activation`` of the same shape."""


class Site(NamedTuple):
    """One activation: a leaf of what a method of a submodule returns."""

    path: tuple[str, ...] = ()
    """Names from the model to the submodule; () is the model itself."""
    method: str = "__call__"
    leaf: int = 0
    """Which of several arrays, in the order of ``jax.tree.leaves``."""


@checked
def sites(call: Callable, *args: Any) -> dict[Site, jax.ShapeDtypeStruct]:
    """All activations that a probe can be attached to, with shapes; nothing is computed.

    Methods that a call reaches more than once are left out, as a site must name one activation.
    """
    found: dict[Site, jax.ShapeDtypeStruct] = {}
    repeated: set[tuple] = set()

    def note(next_fun, args, kwargs, context):
        out = next_fun(*args, **kwargs)
        at = context.module.path, context.method_name
        leaves = jax.tree.leaves(out)
        if at in {site[:2] for site in found}:
            repeated.add(at)
        for index, leaf in enumerate(leaves):
            if hasattr(leaf, "shape"):
                found[Site(*at, index)] = jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        return out

    def traced(*args):
        with nn.intercept_methods(note):
            return call(*args)

    jax.eval_shape(traced, *args)
    return {site: shape for site, shape in found.items() if site[:2] not in repeated}


@checked
def intervene(call: Callable, site: Site, edit: Edit) -> Callable:
    """The same call with the activation at a site replaced by ``edit`` of it.

    Raises:
      ConfigError: when called, where the site is not reached exactly once or the edit changes the shape.
    """
    return lambda *args: _intercepted(call, site, edit, args)[0]


@checked
def capture(call: Callable, site: Site) -> Callable:
    """The same call, which returns the activation at a site beside its result."""
    return lambda *args: _intercepted(call, site, lambda x: x, args)


def _intercepted(call: Callable, site: Site, edit: Edit, args: tuple) -> tuple[Any, Array]:
    seen = []

    def interceptor(next_fun, args, kwargs, context):
        out = next_fun(*args, **kwargs)
        if (context.module.path, context.method_name) != (tuple(site.path), site.method):
            return out
        leaves, tree = jax.tree.flatten(out)
        if site.leaf >= len(leaves):
            raise ConfigError(f"{_name(site)} returns {len(leaves)} arrays; leaf {site.leaf} is not among them")
        seen.append(leaves[site.leaf])
        edited = edit(leaves[site.leaf])
        if edited.shape != leaves[site.leaf].shape:
            raise ConfigError(f"an edit of {_name(site)} turned {leaves[site.leaf].shape} into {edited.shape}")
        leaves[site.leaf] = edited
        return jax.tree.unflatten(tree, leaves)

    with nn.intercept_methods(interceptor):
        out = call(*args)
    if len(seen) != 1:
        raise ConfigError(
            f"{_name(site)} was reached {len(seen)} times, not once; interp.recsae.sites(call, ...) lists what there is"
        )
    return out, seen[0]


def _name(site: Site) -> str:
    return f"{'/'.join(site.path) or 'the model'}.{site.method}"
