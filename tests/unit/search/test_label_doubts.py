import numpy as np
import pytest

from serve_app.search import label_doubts as module
from serve_app.search.label_doubts import SHRINKAGE, label_doubts
from serve_app.search.similarity import normalised


@pytest.fixture
def case():
    """(40, 5) vectors around three centres, and their labels, two of them wrong."""
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), [20, 12, 8]).astype(np.int32)
    matrix = normalised(3 * np.eye(3, 5)[labels] + random.standard_normal((40, 5)))
    labels[[4, 25]] = 2, 0
    return matrix, labels


def refitted(matrix, labels, left_out):
    """The prediction for a row by ridge regression on all other rows, with the ridge of the whole set."""
    rows = np.arange(len(matrix)) != left_out
    everything = matrix - matrix.mean(axis=0)
    ridge = SHRINKAGE * (everything**2).sum() / matrix.shape[1]
    mean = matrix[rows].mean(axis=0)
    centred, targets = matrix[rows] - mean, np.eye(3)[labels[rows]]
    gram = centred.T @ centred + ridge * np.eye(matrix.shape[1])
    weights = np.linalg.solve(gram, centred.T @ (targets - targets.mean(axis=0)))
    return (matrix[left_out] - mean) @ weights + targets.mean(axis=0)


@pytest.mark.parametrize("block_numbers", [1, 40, 2**22])
def test_each_row_is_predicted_by_a_fit_without_it(case, block_numbers, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_NUMBERS", block_numbers)
    matrix, labels = case
    others, margins = label_doubts(matrix, labels, 3)
    for row, label in enumerate(labels):
        predicted = refitted(matrix.astype(np.float64), labels, row)
        own, predicted[label] = predicted[label], -np.inf
        assert others[row] == predicted.argmax()
        assert margins[row] == pytest.approx(np.clip(predicted.max() - own, -1, 1), abs=1e-4)
    assert set(np.argsort(-margins)[:2]) == {4, 25}


def test_equal_vectors_and_vectors_without_a_direction_are_no_error():
    for matrix in (np.zeros((4, 3), np.float32), np.ones((4, 3), np.float32) / np.float32(3**0.5)):
        others, margins = label_doubts(matrix, np.array([0, 0, 1, 1], np.int32), 2)
        assert others.tolist() == [1, 1, 0, 0]
        assert np.isfinite(margins).all()
