"""What counting alone can do on the bundled language models' tasks: the bar that they have to clear."""

from dataclasses import dataclass

import numpy as np

HELD_BACK = 50  # every 50th block of tokens is held back, to fit the mixture's weights on
BLOCK = 1000
ROUNDS = 20


@dataclass(frozen=True)
class Trigram:
    """An interpolated trigram model (Jelinek, Mercer 1980).

    p(w | u, v) mixes trigram, bigram, unigram and uniform probabilities; the weights depend on how often u v was seen
    (in powers of two) and are fitted by expectation maximisation on held-back training text.
    """

    vocabulary: int
    counts: tuple[np.ndarray, tuple, tuple, np.ndarray, tuple]
    weights: np.ndarray

    @classmethod
    def trained(cls, tokens: np.ndarray, vocabulary: int) -> "Trigram":
        tokens = tokens.astype(np.int64)
        held = (np.arange(len(tokens)) // BLOCK) % HELD_BACK == HELD_BACK - 1
        grams = _windows(tokens, 3)
        seen = grams[~held[2:]]
        counts = (
            np.bincount(seen[:, 2], minlength=vocabulary).astype(float),
            _counted(_keys(seen[:, 1:], vocabulary)),
            _counted(_keys(seen, vocabulary)),
            # What the conditional probabilities are divided by: how often their conditions were seen.
            np.bincount(seen[:, 1], minlength=vocabulary).astype(float),
            _counted(_keys(seen[:, :2], vocabulary)),
        )
        return cls(vocabulary, counts, np.full((64, 4), 0.25))._fitted(grams[held[2:]])

    def loss(self, grams: np.ndarray) -> np.ndarray:
        """The cross-entropy of each last token given the two before it, nats; grams is (predictions, 3)."""
        parts, bucket = self._parts(grams)
        return -np.log((parts * self.weights[bucket]).sum(1))

    def _parts(self, grams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The four probabilities (predictions, 4) and the bucket of each context."""
        size = self.vocabulary
        unigrams, bigrams, trigrams, words, pairs = self.counts
        context = _look_up(pairs, _keys(grams[:, :2], size))
        parts = [
            _look_up(trigrams, _keys(grams, size)) / np.maximum(context, 1),
            _look_up(bigrams, _keys(grams[:, 1:], size)) / np.maximum(words[grams[:, 1]], 1),
            unigrams[grams[:, 2]] / unigrams.sum(),
            np.full(len(grams), 1 / size),
        ]
        return np.stack(parts, 1), np.ceil(np.log2(context + 1)).astype(int)

    def _fitted(self, grams: np.ndarray) -> "Trigram":
        parts, bucket = self._parts(grams)
        weights = self.weights.copy()
        for _ in range(ROUNDS):
            share = parts * weights[bucket]
            share /= share.sum(1, keepdims=True)
            totals = np.zeros_like(weights)
            np.add.at(totals, bucket, share)
            totals += 1e-3  # a bucket that the held-back text lacks keeps every part
            weights = totals / totals.sum(1, keepdims=True)
        return Trigram(self.vocabulary, self.counts, weights)


@dataclass(frozen=True)
class Neighbours:
    """The best guess of a token from the two beside it: the one most often seen between them; where the pair was
    never seen apart by one token, the one that maximises p(token | left) · p(right | token).
    """

    vocabulary: int
    pairs: np.ndarray
    best: np.ndarray
    following: np.ndarray

    @classmethod
    def trained(cls, tokens: np.ndarray, vocabulary: int) -> "Neighbours":
        grams = _windows(tokens.astype(np.int64), 3)
        keys, counts = _counted(_keys(grams[:, [0, 2, 1]], vocabulary))
        pairs = keys // vocabulary
        order = np.lexsort((-counts, pairs))
        first = np.unique(pairs[order], return_index=True)[1]
        following = np.bincount(_keys(grams[:, :2], vocabulary), minlength=vocabulary**2)
        following = following.reshape(vocabulary, vocabulary).astype(np.float32)
        return cls(vocabulary, pairs[order][first], (keys % vocabulary)[order][first], following)

    def guess(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """The best guesses; left and right are (predictions,)."""
        keys = left * self.vocabulary + right
        place = np.minimum(np.searchsorted(self.pairs, keys), len(self.pairs) - 1)
        guesses = self.best[place]
        seen_after = np.maximum(self.following.sum(1), 1)
        for i in np.flatnonzero(self.pairs[place] != keys):
            guesses[i] = (self.following[left[i]] * self.following[:, right[i]] / seen_after).argmax()
        return guesses


def _windows(tokens: np.ndarray, size: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(tokens, size)


def _keys(grams: np.ndarray, vocabulary: int) -> np.ndarray:
    """One number for each row of tokens."""
    keys = np.zeros(len(grams), dtype=np.int64)
    for column in grams.T:
        keys = keys * vocabulary + column
    return keys


def _counted(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.unique(keys, return_counts=True)


def _look_up(counted: tuple[np.ndarray, np.ndarray], keys: np.ndarray) -> np.ndarray:
    known, counts = counted
    place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
    return np.where(known[place] == keys, counts[place], 0).astype(float)
