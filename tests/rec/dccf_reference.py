"""DCCF on dense matrices, in NumPy and the paper's symbols; all functions are analytic, so complex steps differentiate.

All node tables are stacked, users first. Neither speed nor memory matters here: edges are entries of n x n matrices.
"""

import numpy as np


def encode(R, E, Cu, Ci, layers):
    """The readout and, per layer, (Z, Rv, H_beta, H_gamma)."""
    users = len(R)
    A = np.block([[np.zeros((users, users)), R], [R.T, np.zeros((R.shape[1],) * 2)]])
    scale = inverse(np.sqrt(A.sum(1)))
    Abar = scale[:, None] * A * scale
    X, total, views = E, E, []
    for _ in range(layers):
        Z = Abar @ X
        Rv = np.concatenate([softmax(X[:users] @ Cu) @ Cu.T, softmax(X[users:] @ Ci) @ Ci.T])
        H_beta, H_gamma = (mixing(A, Q) @ X for Q in (Z, Rv))
        views.append((Z, Rv, H_beta, H_gamma))
        X = Z + Rv + H_beta + H_gamma + X
        total = total + X
    return total, views


def mixing(A, Q):
    """The row-stochastic matrix of alpha = (cos + 1) / 2 on the entries of A."""
    alpha = A * (cosines(Q, Q) + 1) / 2
    return inverse(alpha.sum(1))[:, None] * alpha


def losses(R, E, Cu, Ci, triples, layers, tau, ssl, embedding_reg, prototype_reg, eps=0.0):
    """The four terms of the loss, weighted, for triples (u, i+, i-)."""
    X, views = encode(R, E, Cu, Ci, layers)
    u, i, j = triples[0], triples[1] + len(R), triples[2] + len(R)
    difference = np.sum(X[u] * (X[i] - X[j]), axis=1)
    contrast = 0.0
    for Z, *others in views:
        for nodes in (np.unique(u), np.unique(i)):
            contrast = contrast + sum(nce(Z[nodes], V[nodes], tau, eps) for V in others)
    return {
        "bpr": np.mean(np.log(1 + np.exp(-difference))),
        "emb": embedding_reg * sum(np.sum(E[ids] ** 2) for ids in (u, i, j)),
        "cen": prototype_reg * (np.sum(Cu**2) + np.sum(Ci**2)),
        "ssl": ssl * contrast,
    }


def nce(A, B, tau, eps=0.0):
    """InfoNCE of rows against rows, by the textbook."""
    similarity = np.exp(cosines(A, B) / tau)
    return np.mean(-np.log(np.diag(similarity) / (similarity.sum(1) + eps) + eps))


def gradients(value, *arrays, step=1e-30):
    """The derivative of a real function in every entry of every array, by complex steps: exact to rounding."""
    grads = []
    for k, array in enumerate(arrays):
        grad = np.zeros(array.shape)
        for index in np.ndindex(array.shape):
            moved = [part.astype(complex) for part in arrays]
            moved[k][index] += 1j * step
            grad[index] = np.imag(value(*moved)) / step
        grads.append(grad)
    return grads


def cosines(A, B):
    return unit(A) @ unit(B).T


def unit(X):
    norm = np.sqrt(np.sum(X**2, axis=1, keepdims=True))
    return X / np.where(norm.real > 1e-12, norm, 1e-12)


def softmax(X):
    weights = np.exp(X - X.real.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def inverse(x):
    return np.where(x == 0, 0, 1 / np.where(x == 0, 1, x))
