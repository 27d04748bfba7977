r"""The strongly connected components of the numbers of a state: the diagonal blocks that structure alone gives.

Number i of the new state depends on number j of the old one, an edge of a graph, or no derivative leads from j to i.
Numbers that depend on each other, directly or through others, are one strongly connected component. There are no cycles
among components: in some order of them every Jacobian is block triangular, with the components as diagonal blocks.

Duff & Reid, ACM Trans. Math. Softw. 4 (1978); Tarjan, SIAM J. Comput. 1 (1972).
"""

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int
from scipy.sparse.csgraph import connected_components


MOST_BLOCKS = 8  # each dense block compiles an orthonormalization of its own


class PushGroup(NamedTuple):
    """Components that are pushed together, since the same arrays of the state hold them.

    Components of one color share columns: none of them reads another.

    **Fields:**

    - `leaves`: the indices of these arrays among the leaves of the state.
    - `dense`: for each color the indices of its components in `Components.dense`.
    - `single`: for each color the indices of its components in `Components.single`.
    """

    leaves: tuple[int, ...]
    dense: tuple[tuple[int, ...], ...]
    single: tuple[tuple[int, ...], ...]


class Components(NamedTuple):
    """The components of a step, by their indices in the raveled state.

    **Fields:**

    - `dense`: the components of several numbers.
    - `single`: the numbers that are components by themselves and depend on themselves.
    - `forgotten`: the numbers on which no number of their component depends.
    - `groups`: how the others are pushed.
    """

    dense: tuple[tuple[int, ...], ...]
    single: tuple[int, ...]
    forgotten: tuple[int, ...]
    groups: tuple[PushGroup, ...]

    def order(self) -> Int[np.ndarray, " d"]:
        """The indices in the state, one block after the other."""
        return np.array(
            [*(i for block in self.dense for i in block), *self.single, *self.forgotten]
        )

    def num_columns(self, group: PushGroup, num_exponents: int) -> int:
        """How many columns push a group."""
        largest = [max(len(self.dense[i]) for i in color) for color in group.dense]
        return sum(min(size, num_exponents) for size in largest) + len(group.single)


def find_components(
    reads: Bool[np.ndarray, "n n"], label: Int[np.ndarray, " d"], leaf: Int[np.ndarray, " d"]
) -> Components:
    """The components of a graph of n labels, `reads[i, j]` where i depends on j.

    `label` and `leaf` are the label and the leaf of the state for each of its d numbers.
    """
    groups = merge_small(strongly_connected(reads), np.bincount(label))
    members = [np.flatnonzero(np.isin(label, group)) for group in groups]
    is_read = [bool(reads[np.ix_(group, group)].any()) for group in groups]
    dense = [i for i, own in enumerate(members) if is_read[i] and len(own) > 1]
    single = [i for i, own in enumerate(members) if is_read[i] and len(own) == 1]
    forgotten = [j for i, own in enumerate(members) if not is_read[i] for j in own]
    push_groups: dict[tuple[int, ...], PushGroup] = {}
    for field, chosen in {"dense": dense, "single": single}.items():
        edges = _condense(reads, [groups[i] for i in chosen])
        for color in _color(edges | edges.T):
            held_by = np.unique(np.concatenate([leaf[members[chosen[i]]] for i in color]))
            leaves = tuple(map(int, held_by))
            group = push_groups.get(leaves, PushGroup(leaves, (), ()))
            push_groups[leaves] = group._replace(**{field: (*getattr(group, field), color)})
    return Components(
        dense=tuple(tuple(map(int, members[i])) for i in dense),
        single=tuple(int(members[i][0]) for i in single),
        forgotten=tuple(map(int, forgotten)),
        groups=tuple(push_groups.values()),
    )


def _condense(
    reads: Bool[np.ndarray, "n n"], groups: Sequence[Int[np.ndarray, " m"]]
) -> Bool[np.ndarray, "g g"]:
    """The graph of g groups of labels, without labels that are in no group."""
    owner = np.full(len(reads), -1)
    for i, group in enumerate(groups):
        owner[group] = i
    rows, columns = (owner[labels] for labels in np.nonzero(reads))
    is_edge = (rows >= 0) & (columns >= 0) & (rows != columns)
    edges = np.zeros((len(groups), len(groups)), bool)
    edges[rows[is_edge], columns[is_edge]] = True
    return edges


def strongly_connected(reads: Bool[np.ndarray, "n n"]) -> list[Int[np.ndarray, " m"]]:
    """The strongly connected components, each after all those that it reads, else in the order of the state."""
    count, label = connected_components(reads, directed=True, connection="strong")
    groups = np.split(np.argsort(label, kind="stable"), np.cumsum(np.bincount(label))[:-1])
    if count == 1:
        return groups
    edges = _condense(reads, groups)
    num_missing = edges.sum(axis=1)
    ready = [(int(groups[i][0]), int(i)) for i in np.flatnonzero(num_missing == 0)]
    heapq.heapify(ready)
    ordered = []
    while ready:
        _, i = heapq.heappop(ready)
        ordered.append(groups[i])
        readers = np.flatnonzero(edges[:, i])
        num_missing[readers] -= 1
        for j in readers[num_missing[readers] == 0]:
            heapq.heappush(ready, (int(groups[j][0]), int(j)))
    return ordered


def merge_small(
    groups: list[Int[np.ndarray, " m"]], sizes: Int[np.ndarray, " n"]
) -> list[Int[np.ndarray, " m"]]:
    """At most `MOST_BLOCKS` groups of several numbers.

    Where there are more, neighbors in the order of the components join: among the joined ones there are no cycles
    either.
    """
    weights = np.array([sizes[group].sum() for group in groups])
    if np.sum(weights > 1) <= MOST_BLOCKS:
        return groups
    middle = np.cumsum(weights) - weights / 2
    part = (MOST_BLOCKS * middle / weights.sum()).astype(int)
    merged = []
    for i in np.unique(part):
        own = [group for group, j in zip(groups, part, strict=True) if i == j]
        is_dense = any(sizes[group].sum() > 1 for group in own)
        merged.extend([np.sort(np.concatenate(own))] if is_dense else own)
    return merged


def _color(conflicts: Bool[np.ndarray, "g g"]) -> list[tuple[int, ...]]:
    """Greedy coloring: members of one color have no conflict (Curtis, Powell & Reid, J. Inst. Math. Appl. 13, 1974)."""
    colors: list[list[int]] = []
    is_taken = np.zeros((len(conflicts), len(conflicts) + 1), bool)  # by a conflicting member
    for member, conflicting in enumerate(conflicts):
        color = int(np.argmin(is_taken[member]))
        if color == len(colors):
            colors.append([])
        colors[color].append(member)
        is_taken[conflicting, color] = True
    return list(map(tuple, colors))
