"""Enumerate the words of regions that a cycle may have, one word for each necklace.

A letter is a region, a word is a sequence of regions, and a necklace is a word up to rotation.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int

from .._core.piecewise_linear import PiecewiseLinearMap
from ._float64_map import Float64Map


_RAY_TOLERANCE = 1e-10  # a polygon whose unit rays cross a line by less is on one side of it


def enumerate_words(
    net: PiecewiseLinearMap,
    period: int,
    regions: Bool[np.ndarray, "r h"] | None,
    max_words: int,
) -> Bool[np.ndarray, "n k h"] | None:
    """All words that may have a cycle, one for each necklace; None if there are more than `max_words`.

    `regions` are the non-empty regions; None if they are too many to list.
    """
    if period == 1:
        return None if regions is None else regions[:, None]
    if net.h1.size <= 2:
        return planar_necklaces(net, period, max_words)
    if regions is None or count_necklaces(len(regions), period) > max_words:
        return None
    return regions[necklaces(len(regions), period)]


def least_rotation(word: Bool[np.ndarray, "k h"]) -> int:
    """The number of letters by which to rotate a word to get its least rotation in the order of its bits."""
    letters = [letter.tobytes() for letter in np.asarray(word, bool)]
    return min(range(len(letters)), key=lambda i: letters[i:] + letters[:i])


def count_necklaces(num_letters: int, length: int) -> int:
    """The number of necklaces, including those that repeat a shorter word."""
    return sum(num_letters ** np.gcd(i, length).item() for i in range(length)) // length


def necklaces(num_letters: int, length: int) -> Int[np.ndarray, "n k"]:
    """The least rotation of each word, in ascending order, as indices of letters.

    Fredricksen & Maiorana, Discrete Math. 23 (1978).
    """

    def generate() -> Iterator[list[int]]:
        word = [0] * length
        yield word
        while True:
            i = length - 1
            while i >= 0 and word[i] == num_letters - 1:
                i -= 1
            if i < 0:
                return
            word[i] += 1
            for j in range(i + 1, length):
                word[j] = word[j - i - 1]
            if length % (i + 1) == 0:
                yield word

    return np.array([list(word) for word in generate()])


def planar_necklaces(
    net: PiecewiseLinearMap, length: int, max_words: int
) -> Bool[np.ndarray, "n k h"] | None:
    """The necklaces that some state of a map of one or two dimensions follows; None if there are more than `max_words`,
    prefixes included.

    The states that follow a word form a convex polygon, possibly unbounded, and so do their images. In homogeneous
    coordinates the polygon is a cone of a few rays, and the map on a region is one matrix. The hyperplanes cut the
    image into parts, one for each next letter, exactly up to rounding. A branch of the tree of words ends where its
    polygon is empty or where its word is not the prefix of a necklace.
    """
    tree = _Tree(net)
    level = [((letter,), 1, image) for letter, image in tree.first()]
    num_prefixes = len(level)
    for depth in range(1, length):
        next_level = []
        for word, period, polygon in level:
            for letter, image in tree.split(polygon):
                least = word[depth - period]
                if letter >= least:
                    next_level.append(
                        ((*word, letter), period if letter == least else depth + 1, image)
                    )
        level = next_level
        num_prefixes += len(level)
        if num_prefixes > max_words:
            return None
    words = sorted({word for word, period, _ in level if length % period == 0})
    return np.array(words, bool).reshape(len(words), length, net.h2.size)


class _Tree:
    """Cut polygons at the lines of a map and map the parts. A polygon is given by its rays (n, 3) in order."""

    def __init__(self, net: PiecewiseLinearMap):
        self.A, self.W1, self.W2, self.h1, self.h2 = Float64Map.of(net)
        size = self.h1.size
        self.axes = [*range(size), 2]  # the coordinates of a state, then the homogeneous coordinate
        # Scale the states so that distances are about 1, whatever their units.
        rows = np.linalg.norm(self.W2, axis=1)
        far = np.abs(self.h2) / np.where(rows > 0, rows, np.inf)
        scale = np.max(np.concatenate([far, np.abs(self.h1)]), initial=0)
        scale = scale if scale > 0 else 1.0
        self.W1, self.W2, self.h1 = self.W1 / scale, self.W2 * scale, self.h1 / scale
        lines = np.zeros((self.h2.size, 3))
        lines[:, self.axes] = np.column_stack([self.W2, self.h2])
        length = np.linalg.norm(lines, axis=1, keepdims=True)
        self.lines = lines / np.where(length > 0, length, 1)
        self.maps: dict[tuple[int, ...], np.ndarray] = {}

    def first(self):
        """The letters and images of all states, from four quadrants or two half-lines."""
        axes = np.eye(3)
        if self.h1.size == 1:
            starts = [axes[[2, 0]] * [[1], [side]] for side in (1, -1)]
        else:
            starts = [axes[[2, 0, 1]] * [[1], [x], [y]] for x in (1, -1) for y in (1, -1)]
        return [part for start in starts for part in self.split(start)]

    def split(self, polygon):
        """The regions that a polygon meets, and the image of its part in each."""
        rays = polygon / np.linalg.norm(polygon, axis=1, keepdims=True)
        values = rays @ self.lines.T
        low, high = values.min(axis=0), values.max(axis=0)
        sides = (high > _RAY_TOLERANCE).astype(int)
        parts = [(sides, np.column_stack([rays, values]))]
        for i in np.flatnonzero((low < -_RAY_TOLERANCE) & sides):
            parts = [half for part in parts for half in _halves(*part, i)]
        found = []
        for sides, part in parts:
            letter = tuple(sides.tolist())
            matrix = self._map(letter)
            image = part[:, :3] @ matrix
            # A ray that is mapped to zero is no part of the image.
            is_kept = np.linalg.norm(image, axis=1) > 1e-14 * np.linalg.norm(matrix)
            found.append((letter, image[is_kept]))
        return found

    def _map(self, letter):
        if letter not in self.maps:
            active = self.W1 * np.array(letter)
            matrix = np.zeros((3, 3))
            matrix[np.ix_(self.axes[:-1], self.axes)] = np.column_stack(
                [self.A + active @ self.W2, self.h1 + active @ self.h2]
            )
            matrix[2, 2] = 1
            self.maps[letter] = matrix.T
        return self.maps[letter]


def _halves(sides, part, line):
    """The parts of a polygon on both sides of a line. A row of `part` is a ray, then its values at all lines."""
    value = part[:, 3 + line]
    if value.max() <= _RAY_TOLERANCE or value.min() >= -_RAY_TOLERANCE:
        sides = sides.copy()
        sides[line] = value.max() > _RAY_TOLERANCE
        return [(sides, part)]
    below, above = [], []
    num_edges = len(part) if len(part) > 2 else 1  # a segment has one edge
    for i, (row, own) in enumerate(zip(part, value, strict=True)):
        j = (i + 1) % len(part)
        if own <= 0:
            below.append(row)
        if own >= 0:
            above.append(row)
        if i < num_edges and own * value[j] < 0:
            crossing = (own * part[j] - value[j] * row) / (own - value[j])
            below.append(crossing)
            above.append(crossing)
    return [
        (np.where(np.arange(sides.size) == line, bit, sides), np.array(half))
        for bit, half in ((0, below), (1, above))
    ]
