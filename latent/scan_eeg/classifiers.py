"""Classifiers and features of others that a representation is compared with, all from scikit-learn and NumPy."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Int
from sklearn.covariance import ledoit_wolf
from sklearn.decomposition import PCA, FastICA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from latent.scan_eeg.measures import components, lpp_difference, window_means

Features = Float[np.ndarray, "n features"]

CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "LR": lambda: LogisticRegression(class_weight="balanced", max_iter=2_000),
    "LDA": lambda: LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto", priors=[0.5, 0.5]),
    "linear SVM": lambda: SVC(kernel="linear", class_weight="balanced"),
    "RBF SVM": lambda: SVC(class_weight="balanced"),
    "k-NN": lambda: KNeighborsClassifier(15),
    "MLP": lambda: MLPClassifier((32,), early_stopping=True, max_iter=500, random_state=0),
}


def predicted(classifier: str, train: Features, labels: Int[np.ndarray, " n"], test: Features) -> np.ndarray:
    """Classes of the test rows by a classifier of standardised features."""
    model = make_pipeline(StandardScaler(), CLASSIFIERS[classifier]())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(train, labels).predict(test)


def accuracy(classifier: str, train: Features, labels, test: Features, test_labels) -> float:
    """Balanced accuracy on the test rows."""
    return float(balanced_accuracy_score(test_labels, predicted(classifier, train, labels, test)))


def pca(train: Features, test: Features, components: int = 10) -> tuple[Features, Features]:
    """Principal components of the training rows."""
    model = PCA(components, random_state=0).fit(train)
    return model.transform(train), model.transform(test)


def pca_projection(
    train: Float[np.ndarray, "n ..."], test: Float[np.ndarray, "m ..."], components: int = 10
) -> Float[np.ndarray, "m ..."]:
    """The test rows, of any shape, projected on the principal components of the training rows."""
    model = PCA(components, random_state=0).fit(train.reshape(len(train), -1))
    return model.inverse_transform(model.transform(test.reshape(len(test), -1))).reshape(test.shape)


def ica(train: Features, test: Features, components: int = 10) -> tuple[Features, Features]:
    """Independent components of the training rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = FastICA(components, whiten="unit-variance", max_iter=500, random_state=0).fit(train)
    return model.transform(train), model.transform(test)


def hand_made(
    train: Float[Array, "n 6 256"], test: Float[Array, "m 6 256"]
) -> dict[str, tuple[Features | Array, Features | Array]]:
    """What a representation of ERPs is compared with, by name: features of training and test people."""
    fixed = {
        "LPP difference": lpp_difference,
        "LPP means": lambda x: window_means(x, 400, 772),
        "components": components,
    }
    flat, flat_test = (np.asarray(x.reshape(x.shape[0], -1), np.float64) for x in (train, test))
    made = {"PCA-10": pca(flat, flat_test), "ICA-10": ica(flat, flat_test), "raw": (flat, flat_test)}
    return {name: (fn(train), fn(test)) for name, fn in fixed.items()} | made


def tangent_space(
    train: Float[np.ndarray, "n c t"],
    labels: Int[np.ndarray, " n"],
    test: Float[np.ndarray, "m c t"],
    components: int = 6,
) -> tuple[Features, Features]:
    """Log-Euclidean covariance features of ERPs beside their class means (Barachant, Congedo 2014; a plain version).

    The rows are first projected on the leading spatial components of the training data, so that covariances of many
    channels have full rank.
    """
    flat = np.concatenate(list(train - train.mean((0, 2), keepdims=True)), axis=1)
    spatial = np.linalg.svd(flat, full_matrices=False)[0][:, : min(components, train.shape[1])].T
    train, test = spatial @ train, spatial @ test
    prototypes = np.concatenate([train[labels == value].mean(0) for value in (0, 1)])

    def features(x):
        logs = np.stack([_log_covariance(np.concatenate([prototypes, one])) for one in x])
        rows, columns = np.triu_indices(logs.shape[1])
        return logs[:, rows, columns] * np.where(rows == columns, 1.0, np.sqrt(2.0))

    return features(train), features(test)


def _log_covariance(x: Float[np.ndarray, "c t"]) -> Float[np.ndarray, "c c"]:
    values, vectors = np.linalg.eigh(ledoit_wolf(x.T)[0])
    return (vectors * np.log(np.maximum(values, 1e-12))) @ vectors.T
