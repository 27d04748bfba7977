"""Words of regions: rotations, necklaces, and the words that states of a planar map follow."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Int

from .._core.piecewise_linear import PiecewiseLinearMap
from ._float64_map import Float64Map


Word = tuple[tuple[int, ...], ...]
_RAYS = 1e-10  # a polygon within it of a line is on one side; of unit vectors


def least_rotation(word: Bool[np.ndarray, "k h"]) -> int:
    """By how many letters to rotate a word to make it the least of its rotations, bits before letters."""
    letters = [letter.tobytes() for letter in np.asarray(word, bool)]
    return min(range(len(letters)), key=lambda i: letters[i:] + letters[:i])


def count_necklaces(num_letters: int, length: int) -> int:
    """How many words there are up to rotation, those that repeat a shorter one among them."""
    return sum(num_letters ** np.gcd(i, length).item() for i in range(length)) // length


def necklaces(num_letters: int, length: int) -> Int[np.ndarray, "n k"]:
    """The least rotation of each word, in ascending order.

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
    net: PiecewiseLinearMap, length: int, most: int
) -> Bool[np.ndarray, "n k h"] | None:
    """The words, up to rotation, that some state of a map of one or two dimensions follows; None if there are more
    than `most`, partial ones included.

    The states that follow a word, and so their images, are a convex polygon, possibly unbounded. In homogeneous
    coordinates it is a cone of a few rays, the map of a region is one matrix, and the next letters are the parts that
    the hyperplanes cut the image into: exact up to rounding. Branches end where nothing is left or where the word is
    no beginning of a necklace.
    """
    tree = _Tree(net)
    level = [((letter,), 1, image) for letter, image in tree.first()]
    nodes = len(level)
    for depth in range(1, length):
        following = []
        for word, period, polygon in level:
            for letter, image in tree.split(polygon):
                least = word[depth - period]
                if letter >= least:
                    following.append(
                        ((*word, letter), period if letter == least else depth + 1, image)
                    )
        level = following
        nodes += len(level)
        if nodes > most:
            return None
    words = sorted({word for word, period, _ in level if length % period == 0})
    return np.array(words, bool).reshape(len(words), length, net.h2.size)


class _Tree:
    """The parts that the lines cut a polygon into, and their images. A polygon is its rays in order, (n, 3)."""

    def __init__(self, net: PiecewiseLinearMap):
        self.A, self.W1, self.W2, self.h1, self.h2 = Float64Map.of(net)
        size = self.h1.size
        self.places = [*range(size), 2]  # of the coordinates of a state, and the 1 behind them
        # Distances within what is there are about 1, whatever the units of the states.
        rows = np.linalg.norm(self.W2, axis=1)
        far = np.abs(self.h2) / np.where(rows > 0, rows, np.inf)
        scale = np.max(np.concatenate([far, np.abs(self.h1)]), initial=0)
        scale = scale if scale > 0 else 1.0
        self.W1, self.W2, self.h1 = self.W1 / scale, self.W2 * scale, self.h1 / scale
        lines = np.zeros((self.h2.size, 3))
        lines[:, self.places] = np.column_stack([self.W2, self.h2])
        length = np.linalg.norm(lines, axis=1, keepdims=True)
        self.lines = lines / np.where(length > 0, length, 1)
        self.maps: dict[tuple[int, ...], np.ndarray] = {}

    def first(self):
        """All states: four quadrants, or two half-lines."""
        axes = np.eye(3)
        if self.h1.size == 1:
            starts = [axes[[2, 0]] * [[1], [side]] for side in (1, -1)]
        else:
            starts = [axes[[2, 0, 1]] * [[1], [x], [y]] for x in (1, -1) for y in (1, -1)]
        return [part for start in starts for part in self.split(start)]

    def split(self, polygon):
        """The letters of the regions that a polygon meets, and the images of its parts in them."""
        rays = polygon / np.linalg.norm(polygon, axis=1, keepdims=True)
        values = rays @ self.lines.T
        low, high = values.min(axis=0), values.max(axis=0)
        sides = (high > _RAYS).astype(int)
        parts = [(sides, np.column_stack([rays, values]))]
        for i in np.flatnonzero((low < -_RAYS) & sides):
            parts = [half for part in parts for half in _halves(*part, i)]
        found = []
        for sides, part in parts:
            letter = tuple(sides.tolist())
            matrix = self._map(letter)
            image = part[:, :3] @ matrix
            # A direction that is mapped to zero adds nothing to the image.
            is_kept = np.linalg.norm(image, axis=1) > 1e-14 * np.linalg.norm(matrix)
            found.append((letter, image[is_kept]))
        return found

    def _map(self, letter):
        if letter not in self.maps:
            active = self.W1 * np.array(letter)
            matrix = np.zeros((3, 3))
            matrix[np.ix_(self.places[:-1], self.places)] = np.column_stack(
                [self.A + active @ self.W2, self.h1 + active @ self.h2]
            )
            matrix[2, 2] = 1
            self.maps[letter] = matrix.T
        return self.maps[letter]


def _halves(sides, part, line):
    """The parts on both sides of a line; a row of `part` is a ray and its values at all lines."""
    value = part[:, 3 + line]
    if value.max() <= _RAYS or value.min() >= -_RAYS:
        sides = sides.copy()
        sides[line] = value.max() > _RAYS
        return [(sides, part)]
    below, above = [], []
    # A segment has one edge, not the same one there and back.
    edges = len(part) if len(part) > 2 else 1
    for i, (row, here) in enumerate(zip(part, value, strict=True)):
        j = (i + 1) % len(part)
        if here <= 0:
            below.append(row)
        if here >= 0:
            above.append(row)
        if i < edges and here * value[j] < 0:
            crossing = (here * part[j] - value[j] * row) / (here - value[j])
            below.append(crossing)
            above.append(crossing)
    return [
        (np.where(np.arange(sides.size) == line, bit, sides), np.array(half))
        for bit, half in ((0, below), (1, above))
    ]
