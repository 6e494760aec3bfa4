"""SASRec in the form of ReChorus in NumPy, one history at a time, as the paper writes it."""

import numpy as np

EPSILON = 1e-5
"""``eps`` of ``torch.nn.LayerNorm`` where it is not given, as in ReChorus (src/utils/layers.py)."""


def layer_norm(x, scale, bias):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + EPSILON) * scale + bias


def sasrec_state(params, items, heads=1):
    """The user vector of one unpadded history; positions counted from the most recent item, which has position 1."""
    p = {name: np.asarray(value, np.float64) for name, value in flat(params).items()}
    n, d = len(items), p["items"].shape[1]
    h = p["items"][items] + p["positions"][n - 1 - np.arange(n)]
    gathered = attention(p, h, n, d, heads)
    a = layer_norm(h + gathered, p["attended_0/scale"], p["attended_0/bias"])
    hidden = np.maximum(a @ p["feed_forward_0/Dense_0/kernel"] + p["feed_forward_0/Dense_0/bias"], 0)
    update = hidden @ p["feed_forward_0/Dense_1/kernel"] + p["feed_forward_0/Dense_1/bias"]
    return layer_norm(a + update, p["state_0/scale"], p["state_0/bias"])[-1]


def attention(p, h, n, d, heads):
    q, k, v = (h @ p[f"attention_0/{name}/kernel"] + p["attention_0/biases"][i] for i, name in enumerate("qkv"))
    width, out = d // heads, np.zeros((n, d))
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        for i in range(n):
            scores = np.array([q[i, part] @ k[j, part] / np.sqrt(width) for j in range(i + 1)])
            weights = np.exp(scores - scores.max())
            out[i, part] = (weights / weights.sum()) @ v[: i + 1, part]
    return out


def flat(tree, prefix=""):
    found = {}
    for name, value in tree.items():
        found |= flat(value, f"{prefix}{name}/") if hasattr(value, "items") else {f"{prefix}{name}": value}
    return found
