"""Uncertainty of results against scipy.stats, scikit-learn, brute force, and repeated experiments."""

import itertools
import time

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from model import comparison


def experiment(rng, *, accuracies, num_groups=60, num_seeds=3):
    """Answers of heads on new recordings: correct bool [heads, seeds, clips], groups [clips].

    Clips of a group are alike: each group has a difficulty, the same for all heads.
    """
    sizes = rng.integers(1, 6, num_groups)
    groups = np.repeat(np.arange(num_groups), sizes)
    # One normal number a group, shared, and one a clip and answer; P(right) is the accuracy exactly.
    ease = np.repeat(rng.normal(size=num_groups), sizes) + rng.normal(size=(len(accuracies), num_seeds, len(groups)))
    limits = scipy.stats.norm.isf(np.asarray(accuracies), scale=np.sqrt(2))
    return ease > limits[:, None, None], groups


def test_the_interval_over_seeds_is_students_and_covers():
    values = [0.81, 0.84, 0.79, 0.9]
    mean, interval = comparison.mean_interval(values)
    assert mean == pytest.approx(np.mean(values))
    assert interval == pytest.approx(scipy.stats.ttest_1samp(values, 0).confidence_interval(0.95))
    assert comparison.mean_interval(values, 0.8)[1] == pytest.approx(
        scipy.stats.t.interval(0.8, 3, loc=np.mean(values), scale=scipy.stats.sem(values))
    )
    assert comparison.mean_interval([0.8]) == (0.8, None)
    assert comparison.mean_interval([0.8, 0.8])[1] == (0.8, 0.8)
    rng = np.random.default_rng(0)
    intervals = [comparison.mean_interval(rng.normal(0.8, 0.05, 4))[1] for _ in range(300)]
    assert 0.92 <= np.mean([low <= 0.8 <= high for low, high in intervals]) <= 0.98
    for bad in ([], [0.1, np.nan], [[0.1]]):
        with pytest.raises(ValueError, match="finite numbers"):
            comparison.mean_interval(bad)
    with pytest.raises(ValueError, match="confidence must be between 0 and 1"):
        comparison.mean_interval(values, 95)


@pytest.mark.parametrize("num_groups", [9, 150])
def test_the_interval_over_recordings_is_that_of_drawing_groups_one_by_one(num_groups):
    (correct,), groups = experiment(np.random.default_rng(1), accuracies=[0.7], num_groups=num_groups)
    low, high = comparison.group_bootstrap(correct, groups, seed=0)
    rng, drawn = np.random.default_rng(2), []
    members = [np.flatnonzero(groups == group) for group in range(num_groups)]
    for _ in range(4000):
        clips = np.concatenate([members[group] for group in rng.integers(0, num_groups, num_groups)])
        drawn.append(correct[:, clips].mean())
    # Korn and Graubard's formula, and near it what Student's quantile makes of the deviation.
    accuracy, variance = correct.mean(), np.var(drawn) * num_groups / (num_groups - 1)
    student = scipy.stats.t.ppf(0.975, [num_groups - 1, len(groups) - 1])
    worth = accuracy * (1 - accuracy) / variance * (student[1] / student[0]) ** 2
    right, wrong = accuracy * worth, (1 - accuracy) * worth
    exact = (scipy.stats.beta(right, wrong + 1).ppf(0.025), scipy.stats.beta(right + 1, wrong).ppf(0.975))
    assert (low, high) == pytest.approx(exact, abs=0.006)
    assert high - low == pytest.approx(2 * student[0] * np.sqrt(variance), rel=0.15)


def test_the_interval_over_independent_clips_is_the_binomial_one_and_scipys():
    single = np.random.default_rng(1).random((1, 400)) < 0.8
    ours = comparison.group_bootstrap(single, range(single.shape[1]), seed=0)
    exact = scipy.stats.binomtest(int(single.sum()), single.size).proportion_ci(method="exact")
    assert ours == pytest.approx((exact.low, exact.high), abs=0.002)
    theirs = scipy.stats.bootstrap((single[0],), np.mean, method="percentile", rng=np.random.default_rng(3))
    assert ours == pytest.approx(theirs.confidence_interval, abs=0.006)


def test_the_interval_over_recordings_depends_on_nothing_else():
    (correct,), groups = experiment(np.random.default_rng(1), accuracies=[0.8])
    interval = comparison.group_bootstrap(correct, groups, seed=0)
    order = np.random.default_rng(2).permutation(len(groups))
    assert comparison.group_bootstrap(correct[::-1, order], [f"note {groups[i]}" for i in order], seed=0) == interval
    assert comparison.group_bootstrap(correct, groups, seed=1) != interval
    low, high = comparison.group_bootstrap(correct, groups, seed=0, confidence=0.5)
    assert interval[0] < low < correct.mean() < high < interval[1]
    # All right: what 20 independent groups can tell. One group: nothing.
    for answer in (True, False):
        exact = scipy.stats.binomtest(20 * answer, 20).proportion_ci(method="exact")
        same = np.full((2, 60), answer)
        assert comparison.group_bootstrap(same, np.arange(60) // 3, seed=0) == pytest.approx((exact.low, exact.high))
    assert comparison.group_bootstrap(correct, [0] * len(groups), seed=0) is None


@pytest.mark.parametrize(
    "num_groups, accuracy, worse", [(8, 0.6, 0.5), (15, 0.8, 0.74), (60, 0.95, 0.92), (200, 0.6, 0.6)]
)
def test_intervals_over_recordings_cover_the_truth(num_groups, accuracy, worse):
    rng = np.random.default_rng(num_groups)
    covered, covered_without_groups, differences_covered = [], [], []
    for seed in range(300):
        (one, other), groups = experiment(rng, accuracies=[accuracy, worse], num_groups=num_groups)
        low, high = comparison.group_bootstrap(one, groups, seed, 1000)
        covered.append(low <= accuracy <= high)
        low, high = comparison.group_bootstrap(one[:1], range(len(groups)), seed, 1000)
        covered_without_groups.append(low <= accuracy <= high)
        low, high = comparison.paired(one, other, groups, seed, 1000).interval
        differences_covered.append(low <= accuracy - worse <= high)
    assert 0.92 <= np.mean(covered) <= 0.98 and 0.92 <= np.mean(differences_covered) <= 0.98
    assert np.mean(covered_without_groups) < np.mean(covered) - 0.03  # which is why groups are drawn whole


def test_paired_comparison_equals_scipy_and_brute_force():
    (one, other), groups = experiment(np.random.default_rng(5), accuracies=[0.8, 0.7], num_groups=14, num_seeds=4)
    compared = comparison.paired(one, other, groups, seed=0)
    assert compared.difference == pytest.approx(one.mean() - other.mean())
    expected = scipy.stats.ttest_rel(one.mean(axis=1), other.mean(axis=1)).confidence_interval(0.95)
    assert compared.seed_interval == pytest.approx(expected)
    more = np.array([(one.mean(0) - other.mean(0))[groups == group].sum() for group in range(14)])
    signs = np.array(list(itertools.product([1, -1], repeat=14)))
    exact = np.mean(np.abs(signs @ more) >= abs(more.sum()) - 1e-9)
    assert 0.005 < exact < 0.5 and compared.p_value == pytest.approx(exact, abs=0.01)
    theirs = scipy.stats.permutation_test((more,), np.sum, permutation_type="samples", n_resamples=np.inf)
    assert exact == pytest.approx(theirs.pvalue)
    sizes, rng = np.bincount(groups), np.random.default_rng(6)
    drawn = rng.integers(0, 14, (20_000, 14))
    samples = more[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    half = np.sqrt(14 / 13) * scipy.stats.t.ppf(0.975, 13)
    expected = np.quantile(samples, scipy.stats.norm.cdf([-half, half]))
    assert compared.interval == pytest.approx(expected, abs=0.01)
    back = comparison.paired(other, one, groups, seed=0)
    assert back.difference == -compared.difference and back.p_value == pytest.approx(compared.p_value, abs=0.01)


def test_p_values_of_equally_good_heads_are_even_and_small_for_a_worse_one():
    rng, p_values = np.random.default_rng(7), []
    for seed in range(300):
        (one, other), groups = experiment(rng, accuracies=[0.8, 0.8])
        p_values.append(comparison.paired(one, other, groups, seed, 500).p_value)
    for level in (0.05, 0.1, 0.2, 0.5):
        assert abs(np.mean(np.array(p_values) <= level) - level) < 3 * np.sqrt(level * (1 - level) / 300)
    (one, other), groups = experiment(rng, accuracies=[0.9, 0.6], num_groups=200)
    compared = comparison.paired(one, other, groups, seed=0)
    assert compared.p_value == pytest.approx(1 / 10_001) and compared.interval[0] > 0.2


def test_a_baseline_has_no_seeds_and_equal_heads_do_not_differ():
    (one, other), groups = experiment(np.random.default_rng(8), accuracies=[0.8, 0.75])
    compared = comparison.paired(one, other[:1], groups, seed=0)
    assert compared.difference == pytest.approx(one.mean() - other[:1].mean()) and compared.seed_interval is None
    repeated = comparison.paired(one, np.repeat(other[:1], 3, axis=0), groups, seed=0)
    assert (compared.difference, compared.p_value) == (repeated.difference, repeated.p_value)
    assert compared.interval == pytest.approx(repeated.interval)
    same = comparison.paired(one, one, groups, seed=0)
    assert same == comparison.Paired(difference=0.0, interval=None, seed_interval=(0.0, 0.0), p_value=1.0)


def test_a_thousand_clips_take_a_moment():
    (one, other), groups = experiment(np.random.default_rng(9), accuracies=[0.8, 0.75], num_groups=340, num_seeds=5)
    spent = []
    for _ in range(3):  # other work on the machine slows some of them
        start = time.perf_counter()
        comparison.group_bootstrap(one, groups, seed=0)
        comparison.paired(one, other, groups, seed=0)
        spent.append(time.perf_counter() - start)
    assert min(spent) < 0.6


def test_holm_is_closed_testing_by_bonferroni():
    assert comparison.holm([0.01, 0.02, 0.03, 0.04, 0.05]) == pytest.approx([0.05, 0.08, 0.09, 0.09, 0.09])  # R's
    p_values = np.random.default_rng(0).beta(0.4, 2, 7)
    expected = [
        max(
            min(1.0, len(family) * p_values[list(family)].min())
            for size in range(1, 8)
            for family in itertools.combinations(range(7), size)
            if place in family
        )
        for place in range(7)
    ]
    assert comparison.holm(p_values) == pytest.approx(expected)
    assert comparison.holm([]) == []
    for bad in ([0.1, 1.2], [np.nan]):
        with pytest.raises(ValueError, match="between 0 and 1"):
            comparison.holm(bad)


def test_calibration_error_equals_a_loop_over_bins():
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(5, 0.5), 5000)
    probabilities[0] = [1, 0, 0, 0, 0]
    labels = np.array([rng.choice(5, p=row) for row in probabilities])
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    error = 0.0
    for low in np.arange(15) / 15:
        inside = (confidence > low) & (confidence <= low + 1 / 15 + 1e-12)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    ours = comparison.expected_calibration_error(probabilities, labels)
    assert ours == pytest.approx(error) and ours < 0.03  # labels are drawn from the probabilities themselves
    sharp = probabilities**4 / (probabilities**4).sum(axis=1, keepdims=True)
    assert comparison.expected_calibration_error(sharp, labels) > 0.15
    # One bin holds 0.95 and 1: half right, 0.975 sure. On an edge, 0.6 stands with what is below it, not with 0.61.
    edges = np.array([[1, 0], [0.95, 0.05], [0.6, 0.4], [0.61, 0.39]])
    assert comparison.expected_calibration_error(edges, [1, 0, 0, 1]) == pytest.approx((2 * 0.475 + 0.4 + 0.61) / 4)
    sure = np.eye(5)[labels]
    assert comparison.expected_calibration_error(sure, labels) == 0
    assert comparison.expected_calibration_error(sure, (labels + 1) % 5) == 1


def test_scores_by_class_equal_scikit_learn():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 300)
    answers = np.where(rng.random(300) < 0.7, truth, rng.integers(0, 3, 300))
    answers[answers == 3] = 1  # class 3 has clips and is never answered; class 4 has neither
    confusion = sklearn.metrics.confusion_matrix(truth, answers, labels=range(5))
    precision, recall, f1, clips = sklearn.metrics.precision_recall_fscore_support(
        truth, answers, labels=range(5), zero_division=np.nan
    )
    rows = comparison.per_class(confusion)
    for name, theirs in (("precision", precision), ("recall", recall), ("num_clips", clips)):
        ours = [np.nan if row[name] is None else row[name] for row in rows]
        np.testing.assert_allclose(ours, theirs)
    assert [row["f1"] for row in rows[:4]] == pytest.approx(f1[:4]) and rows[4]["f1"] is None
    assert rows[3]["precision"] is None and rows[3]["recall"] == rows[3]["f1"] == 0
    assert comparison.macro_f1(confusion) == pytest.approx(sklearn.metrics.f1_score(truth, answers, average="macro"))
    for bad in (np.zeros((2, 3)), [[1, -1], [0, 1]]):
        with pytest.raises(ValueError, match="square matrix of counts"):
            comparison.macro_f1(bad)
    with pytest.raises(ValueError, match="counts no clip"):
        comparison.macro_f1(np.zeros((2, 2)))


@pytest.mark.parametrize(
    "correct, groups",
    [(np.ones((2, 3)), range(3)), (np.ones(3, bool), range(3)), (np.ones((2, 3), bool), range(4)),
     (np.ones((2, 0), bool), [])],
)  # fmt: skip
def test_what_does_not_fit_is_refused(correct, groups):
    for compute in (comparison.group_bootstrap, lambda *a: comparison.paired(correct, *a)):
        with pytest.raises(ValueError, match=r"expected bool \[seeds, clips\]"):
            compute(correct, groups, 0)
    probabilities, labels = np.full((4, 2), 0.5), np.zeros(4, int)
    for wrong in ((probabilities, labels[:3]), (probabilities[:0], labels[:0]), (probabilities[0], labels)):
        with pytest.raises(ValueError, match="expected probabilities"):
            comparison.expected_calibration_error(*wrong)
    with pytest.raises(ValueError, match="from 0 to 1"):
        comparison.expected_calibration_error(probabilities * 3, labels)
