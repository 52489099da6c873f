"""What one gets without the network: multinomial logistic regression on standardised values (scikit-learn)."""

import numpy as np
from sklearn.linear_model import LogisticRegression

from model.heads import Examples
from model.standardise import Standardiser, span_basis


def logistic_regression(train: Examples, test: Examples, *, num_classes: int, max_iterations: int = 1000) -> np.ndarray:
    """Fit on `train` (L2 penalty, C=1), answer for `test`.

    Works in the span of the training clips, which changes nothing (the penalised optimum lies in it) but time.

    Returns:
      probabilities float [n, num_classes] for the test clips.
    """
    standardiser = Standardiser.fit(train.flat)
    train_values, test_values = standardiser(train.flat), standardiser(test.flat)
    basis = span_basis(train_values)
    if basis is not None:
        train_values, test_values = train_values @ basis, test_values @ basis
    fitted = LogisticRegression(max_iter=max_iterations).fit(train_values, train.labels)
    probabilities = np.zeros((len(test_values), num_classes))
    probabilities[:, fitted.classes_] = fitted.predict_proba(test_values)
    return probabilities
