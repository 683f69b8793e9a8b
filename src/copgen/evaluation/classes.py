"""How well are classes met, pixel by pixel, and how far can the share of samples that say a class be trusted?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from copgen import scores
from copgen.evaluation.stacks import Array, Flat, Row, Stack, row


def class_rows(stack: Stack) -> Iterator[Row]:
    """Every sample against the observation, then all samples together against all truths."""
    yield from hit_rows(stack)
    cases, hits = counts(stack.flat, codes_of(stack))
    yield from reliability_rows(stack, cases, hits)
    if cases.any():
        yield from probability_rows(stack, cases, hits)


def codes_of(stack: Stack) -> tuple[int, ...]:
    legend = stack.modality.legend
    assert legend is not None
    return legend.codes


def hit_rows(stack: Stack) -> Iterator[Row]:
    """`hits:<code of the truth>:<code of the sample>`: the share of pixels, of the pairs that occur."""
    codes = codes_of(stack)
    seen = [slice(None)] * len(stack.seeds) if stack.seen is None else list(stack.seen)
    for seed, sample, where in zip(stack.seeds, stack.samples, seen, strict=True):
        table = scores.confusion(stack.truths[0][where], sample[where], codes)
        pixels = int(table.sum())
        for i, j in np.argwhere(table):
            yield from row(seed, stack.product, "", f"hits:{codes[i]}:{codes[j]}", table[i, j] / pixels, pixels)


def counts(flat: Flat, codes: Sequence[int]) -> tuple[Array, Array]:
    """In how many pixels k of the m samples say a code, and in how many of those a truth does, [K, m + 1] each: means over the truths.

    `scores.reliability_counts` for many truths. Every code of the legend is asked for, so that those of a code add up to the pixels.
    """
    m, n = len(flat.samples), len(flat.truths)
    cases, hits = np.zeros((2, len(codes), m + 1))
    for i, said in enumerate(scores.class_counts(flat.samples, codes)):
        cases[i] = np.bincount(said, flat.shares, minlength=m + 1)
        true = ((flat.truths == codes[i]) & flat.known).sum(0)
        hits[i] = np.bincount(said, true, minlength=m + 1) / n
    return cases, hits


def reliability_rows(stack: Stack, cases: Array, hits: Array) -> Iterator[Row]:
    """`reliability:<code>:<k>:<m>`: of the pixels where k of m samples say a class, the share where the truth says it."""
    codes, m = codes_of(stack), cases.shape[1] - 1
    for i, k in np.argwhere(cases):
        yield from row(None, stack.product, "", f"reliability:{codes[i]}:{k}:{m}", hits[i, k] / cases[i, k], cases[i, k])


def probability_rows(stack: Stack, cases: Array, hits: Array) -> Iterator[Row]:
    """`brier` and `fair brier`, and the `entropy` of the samples' shares in bits, summed over classes: means over pixels and truths.

    As `scores.brier`, `fair_brier` and `entropy` say for every pixel: their means depend on the counts alone.
    """
    m, weight = cases.shape[1] - 1, stack.flat.weight
    share = np.arange(m + 1) / m
    brier = (hits * (1 - share) ** 2 + (cases - hits) * share**2).sum()
    found = {"brier": brier, "entropy": -(cases * share * np.log2(np.where(share > 0, share, 1))).sum()}
    if m > 1:
        found["fair brier"] = brier - (cases * share * (1 - share)).sum() / (m - 1)
    for name, total in found.items():
        yield from row(None, stack.product, "", name, total / weight, weight)
