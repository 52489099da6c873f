"""What one gets without the network or without training a head: linear classifiers of scikit-learn."""

import numpy as np
from sklearn.linear_model import LogisticRegression, RidgeClassifierCV

from model.standardise import Standardiser

_RIDGE_PENALTIES = np.logspace(-2, 6, 17)


def logistic_regression(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, *, num_classes: int, max_iterations: int = 1000
) -> np.ndarray:
    """Multinomial logistic regression (L2 penalty, C=1) on standardised values.

    Works in the span of the training clips, which changes nothing (the penalised optimum lies in it) but time.

    Args:
      train, test: float [n, values].
      labels: int [n] of the training clips.
    Returns:
      probabilities float [n, num_classes] for the test clips.
    """
    train, test = _in_span(*_standardised(train, test))
    fitted = LogisticRegression(max_iter=max_iterations).fit(train, labels)
    probabilities = np.zeros((len(test), num_classes))
    probabilities[:, fitted.classes_] = fitted.predict_proba(test)
    return probabilities


def ridge(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Ridge regression on +1 and -1 for each class, in closed form; the penalty by leave-one-out on the training clips.

    Args:
      train, test: float [n, values].
      labels: int [n] of the training clips.
    Returns:
      answers int [n] for the test clips.
    """
    train, test = _in_span(*_standardised(train, test))
    return RidgeClassifierCV(_RIDGE_PENALTIES).fit(train, labels).predict(test)


def _standardised(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    standardiser = Standardiser.fit([train])
    return standardiser(train), standardiser(test)


def _in_span(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in an orthonormal basis of the training clips' span, where that is smaller: linear models lose nothing."""
    if len(train) >= train.shape[1]:
        return train, test
    basis = np.linalg.qr(train.T)[0]
    return train @ basis, test @ basis
