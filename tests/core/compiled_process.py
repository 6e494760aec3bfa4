"""Compiles a program of every kind and prints results and counts as JSON; run by test_compilation.py."""

import collections
import json

import jax
import jax.numpy as jnp
import numpy as np

from core.compilation import jit_unrolled, keep_compiled
from core.parallel import data_mesh
from core.sparse import Graph, spmm

jax.config.update("jax_num_cpu_devices", 4)


def on_host(x):
    return np.asarray(x) * 3


def programs():
    """A loop, compiler options, the C kernel with its derivative, a sum over four devices, a call back to Python."""
    x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    graph = Graph.from_edges(np.array([0, 1, 1, 3]), np.array([0, 2, 3, 1]), (4, 4))
    shared = jax.sharding.NamedSharding(data_mesh(), jax.sharding.PartitionSpec("data"))
    yield jax.jit(lambda x: jax.lax.scan(lambda c, row: (jnp.sin(c + row), c), x[0], x)[0])(x)
    yield jit_unrolled(lambda x: jnp.exp(x).sum(0))(x)
    yield jax.jit(jax.grad(lambda x: (spmm(graph, x) ** 2).sum()))(x)
    yield jax.jit(lambda x: x.sum())(jax.device_put(x, shared))
    yield jax.jit(lambda x: jax.pure_callback(on_host, jax.ShapeDtypeStruct(x.shape, x.dtype), x) + 1)(x)


def main() -> None:
    events = collections.Counter()
    jax.monitoring.register_event_listener(lambda event, **_: events.update([event.rsplit("/", 1)[-1]]))
    folder = keep_compiled()
    found = [np.asarray(result).tobytes().hex() for result in programs()]
    asked, read = events["compile_requests_use_cache"], events["cache_hits"]
    print(json.dumps({"folder": folder and str(folder), "results": found, "compiled": asked - read, "read": read}))


main()
