"""Sampling in the plainest way, one row in NumPy: what the vectorised filters are compared with."""

from __future__ import annotations

import numpy as np

from receptance.generation import Sampling


def softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits - logits.max())
    return weights / weights.sum()


def distribution(logits: np.ndarray, sampling: Sampling) -> np.ndarray:
    """The probability of each token."""
    logits = logits.astype(np.float64)
    return (official if sampling.order == "official" else usual)(logits, sampling)


def official(logits: np.ndarray, sampling: Sampling) -> np.ndarray:
    """The order of rwkv's `PIPELINE.sample_logits`, and min_p behind its top_k."""
    p = softmax(logits)
    if sampling.top_p < 1:
        cutoff = np.sort(p)[::-1][first_beyond(p, sampling.top_p)]
        p[p < cutoff] = 0
    p = drop_beyond_top_k(p, sampling)
    p[p < sampling.min_p * p.max()] = 0
    p = p ** (1 / sampling.temperature)
    return p / p.sum()


def usual(logits: np.ndarray, sampling: Sampling) -> np.ndarray:
    p = drop_beyond_top_k(softmax(logits / sampling.temperature), sampling)
    p /= p.sum()
    if sampling.top_p < 1:
        p[falling(p)[first_beyond(p, sampling.top_p) + 1 :]] = 0
        p /= p.sum()
    p[p < sampling.min_p * p.max()] = 0
    return p / p.sum()


def falling(p: np.ndarray) -> list[int]:
    """Tokens from the likeliest; of equally likely ones the lowest id first."""
    return sorted(range(len(p)), key=lambda token: (-p[token], token))


def first_beyond(p: np.ndarray, top_p: float) -> int:
    """The place, from the likeliest, where the sum reaches top_p."""
    sums = np.cumsum(p[falling(p)])
    return int(np.argmax(sums >= top_p)) if sums[-1] >= top_p else len(p) - 1


def drop_beyond_top_k(p: np.ndarray, sampling: Sampling) -> np.ndarray:
    if sampling.top_k:
        p[falling(p)[sampling.top_k :]] = 0
    return p
