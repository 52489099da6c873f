"""What one gets without training a head: linear classifiers of scikit-learn."""

import functools

import numpy as np
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV

from model.standardise import Standardiser

_RIDGE_PENALTIES = np.logspace(-2, 6, 17)
_MAX_ITERATIONS = 1000


class LinearBaselines:
    """Linear classifiers on standardised values, each fitted when it is first asked.

    They work in an orthonormal basis of the training clips' span where that is smaller, which changes nothing (the
    penalised optimum lies in it) but time.
    """

    def __init__(self, values: np.ndarray, labels: np.ndarray, *, num_classes: int):
        """Args:
        values: float [n, values] of the training clips.
        labels: int [n].
        """
        self._standardiser = Standardiser.fit([values])
        standardised = self._standardiser(values)
        self._basis = np.linalg.qr(standardised.T)[0] if len(values) < values.shape[1] else None
        self._inputs = self._in_basis(standardised)
        self._labels = labels
        self._num_classes = num_classes

    def logistic(self, values: np.ndarray) -> np.ndarray:
        """Multinomial logistic regression, L2 penalty with C=1: probabilities float [n, num_classes] of [n, values]."""
        probabilities = np.zeros((len(values), self._num_classes))
        inputs = self._in_basis(self._standardiser(values))
        probabilities[:, self._logistic.classes_] = self._logistic.predict_proba(inputs)
        return probabilities

    def ridge(self, values: np.ndarray) -> np.ndarray:
        """Ridge regression on +1 and -1 for each class, in closed form: answers int [n] for clips [n, values].

        The penalty is chosen by leave-one-out on the training clips.
        """
        return self._ridge.predict(self._in_basis(self._standardiser(values)))

    @functools.cached_property
    def _logistic(self) -> LogisticRegression:
        return LogisticRegression(max_iter=_MAX_ITERATIONS).fit(self._inputs, self._labels)

    @functools.cached_property
    def _ridge(self) -> RidgeClassifierCV:
        return RidgeClassifierCV(_RIDGE_PENALTIES).fit(self._inputs, self._labels)

    def _in_basis(self, values: np.ndarray) -> np.ndarray:
        return values if self._basis is None else values @ self._basis
