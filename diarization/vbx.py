"""Exact speed-up: VBx in memory that grows with the number of embeddings, whatever the number of speakers it begins
with.

VBx (Landini et al., "Bayesian HMM clustering of x-vector sequences", arXiv:2012.14952, in pyannote without its HMM)
begins with the clusters of the linkage as speakers, hundreds of them after hours, and lets those go that explain
nothing. Stock keeps several matrices of (embeddings, speakers): gigabytes, of which all but a few columns are zero in
the end.

What it proves: an iteration needs no more of the responsibilities than two sums over the embeddings, which can be had
block by block, and the caller looks at no column but those of speakers that are left. The formulas are stock's, the
sums are added up in another order, so the numbers agree to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp, softmax

from diarization.upstream import cluster_vbx as stock_cluster_vbx

Floats = NDArray[np.float64]

LEFT_SHARE: Final = 1e-7
"""The caller passes over speakers that hold no larger share of the embeddings."""

STOCK_ENTRIES: Final = 2_000_000
"""Up to so many responsibilities (16 MB a matrix) stock's own function is called."""

_BLOCK: Final = 500_000  # entries at a time: 4 MB a matrix
_TOLERANCE: Final = 1e-4  # of the bound, as in stock
_TINY: Final = 1e-8  # added to a share before its logarithm, as in stock


def cluster_vbx(
    initial: NDArray[Any],
    features: Floats,
    between: Floats,
    Fa: float,  # noqa: N803 (the paper's name, and pyannote's keyword)
    Fb: float,  # noqa: N803
    maxIters: int = 20,  # noqa: N803
    init_smoothing: float = 7.0,
    *,
    heard: Callable[[float], None] = lambda _: None,
) -> tuple[Floats, Floats]:
    """Stands in for pyannote's function of this name; large problems lose the columns of speakers that are not left.

    Args:
        initial: Cluster of each embedding to begin with, shape (embeddings,).
        features: Embeddings in the PLDA's space, shape (embeddings, dimension).
        between: Variance between speakers by dimension; within a speaker it is 1.
        Fa: Weight of the evidence.
        Fb: Weight of the prior; the larger, the fewer speakers.
        maxIters: Iterations at most.
        init_smoothing: How sure the initial clusters are; negative for entirely.
        heard: Hears which share of the iterations is done, at most; what it raises ends them. Not called by stock's.

    Returns:
        Responsibilities, shape (embeddings, speakers), and shares, shape (speakers,).
    """
    speakers = int(initial.max()) + 1
    if len(initial) * speakers <= STOCK_ENTRIES:
        stocks: tuple[Floats, Floats] = stock_cluster_vbx(  # type: ignore[no-untyped-call]
            initial, features, between, Fa, Fb, maxIters, init_smoothing
        )
        return stocks
    model = _Model(features, between, Fa, Fb)
    sums = model.initial_sums(initial.astype(int), speakers, init_smoothing)
    shares, bound = np.full(speakers, 1 / speakers), -np.inf
    for iteration in range(maxIters):
        heard(iteration / maxIters)
        voices = model.voices(sums)
        sums, log_likelihood = model.sums(voices, shares)
        used, shares = shares, sums.counts / sums.counts.sum()
        previous, bound = bound, log_likelihood + voices.evidence(Fb)
        if iteration and bound - previous < _TOLERANCE:
            break
    left = shares > LEFT_SHARE
    return model.responsibilities(voices, used, left), shares[left]


@dataclass(frozen=True)
class _Sums:
    """Of the responsibilities, shape (speakers,), and of the features that they weigh, shape (speakers, dimension)."""

    counts: Floats
    features: Floats


@dataclass(frozen=True)
class _Voices:
    """What is believed of each speaker's voice, shape (speakers, dimension): mean and variance."""

    means: Floats
    variances: Floats

    def evidence(self, prior_weight: float) -> float:
        """The bound's part that does not depend on the embeddings: equation 25."""
        parts = np.log(self.variances) - self.variances - self.means**2 + 1
        return float(prior_weight * 0.5 * np.sum(parts))


class _Model:
    """The embeddings, and one step of the iteration on them. Numbers of equations are the paper's."""

    def __init__(self, features: Floats, between: Floats, evidence_weight: float, prior_weight: float) -> None:
        self._features, self._between = features, between
        self._weight, self._ratio = evidence_weight, evidence_weight / prior_weight
        self._spread = np.sqrt(between)

    def initial_sums(self, initial: NDArray[np.intp], speakers: int, smoothing: float) -> _Sums:
        """Sums of the responsibilities that the initial clusters stand for."""
        counts, features = np.zeros(speakers), np.zeros((speakers, self._features.shape[1]))
        for block in self._blocks(speakers):
            responsibilities = np.equal.outer(initial[block], np.arange(speakers)).astype(np.float64)
            if smoothing >= 0:
                responsibilities = softmax(responsibilities * smoothing, axis=1)
            counts += responsibilities.sum(axis=0)
            features += responsibilities.T @ self._scaled(block)
        return _Sums(counts, features)

    def voices(self, sums: _Sums) -> _Voices:
        """Equations 16 and 17."""
        variances = 1 / (1 + self._ratio * sums.counts[:, None] * self._between)
        return _Voices(self._ratio * variances * sums.features, variances)

    def sums(self, voices: _Voices, shares: Floats) -> tuple[_Sums, float]:
        """The next sums, and the log-likelihood of all embeddings."""
        counts, features, log_likelihood = np.zeros_like(shares), np.zeros_like(voices.means), 0.0
        for block in self._blocks(len(shares)):
            responsibilities, each = self._weigh(block, voices, shares)
            counts += responsibilities.sum(axis=0)
            features += responsibilities.T @ self._scaled(block)
            log_likelihood += float(each.sum())
        return _Sums(counts, features), log_likelihood

    def responsibilities(self, voices: _Voices, shares: Floats, left: NDArray[np.bool_]) -> Floats:
        """Of the speakers that are left, shape (embeddings, speakers left)."""
        return np.vstack([self._weigh(block, voices, shares)[0][:, left] for block in self._blocks(len(shares))])

    def _weigh(self, block: slice, voices: _Voices, shares: Floats) -> tuple[Floats, Floats]:
        """Responsibilities and log-likelihood of each embedding of a block: equations 23 and 24."""
        features = self._features[block]
        constant = -0.5 * (np.sum(features**2, axis=1, keepdims=True) + features.shape[1] * np.log(2 * np.pi))
        fit = self._scaled(block) @ voices.means.T - 0.5 * (voices.variances + voices.means**2) @ self._between
        scores = self._weight * (fit + constant) + np.log(shares + _TINY)
        each = logsumexp(scores, axis=1)
        return np.exp(scores - each[:, None]), each

    def _scaled(self, block: slice) -> Floats:
        return self._features[block] * self._spread

    def _blocks(self, speakers: int) -> list[slice]:
        size = max(1, _BLOCK // speakers)
        return [slice(start, start + size) for start in range(0, len(self._features), size)]
