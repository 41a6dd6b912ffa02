"""Pairs of two sides, one to one, at the least cost, among pairs that are few of all."""

import numpy as np

BATCH = 5000  # pairs that are solved at once, or more where they are connected


def assign(row: np.ndarray, column: np.ndarray, cost: np.ndarray, cost_alone: float) -> np.ndarray:
    """Choose pairs so that each row and each column is in one at most.

    What is least is the sum of their costs, and of ``cost_alone`` for each row that is in none. Groups of pairs that
    have no row or column in common are solved apart, a batch at a time, so that memory grows with the pairs.

    Args:
        row: ``(P,)`` int, at least 0; ``column`` likewise. No pair stands twice.
        cost: ``(P,)`` float64, at least 0.
        cost_alone: at least 0.

    Returns:
        ``(Q,)`` indices of the chosen pairs.
    """
    from scipy.sparse import coo_matrix  # slow to import
    from scipy.sparse.csgraph import connected_components

    if not len(row):
        return np.zeros(0, np.int64)
    rows = int(row.max()) + 1
    graph = coo_matrix((np.ones(len(row)), (row, column + rows)), shape=(rows + int(column.max()) + 1,) * 2)
    _, group = connected_components(graph, directed=False)
    order = np.argsort(group[row], kind="stable")
    bounds = np.flatnonzero(np.diff(group[row][order])) + 1
    bounds = bounds[np.diff(bounds // BATCH, prepend=0) > 0]
    return np.concatenate([
        edges[_solve(row[edges], column[edges], cost[edges], cost_alone)] for edges in np.split(order, bounds)
    ])  # fmt: skip


def _solve(row: np.ndarray, column: np.ndarray, cost: np.ndarray, cost_alone: float) -> np.ndarray:
    """``(Q,)`` indices of the chosen pairs.

    The solver pairs every row. So each row gets a column of its own, which stands for being alone.
    """
    from scipy.sparse import csr_matrix
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    row, column = (np.unique(side, return_inverse=True)[1] for side in (row, column))
    rows, columns = int(row.max()) + 1, int(column.max()) + 1
    own = np.arange(rows)
    costs = np.append(cost, np.full(rows, cost_alone))
    costs += 1  # the same for every row, so that no pair costs nothing, which would mean that there is none
    places = (np.append(row, own), np.append(column, columns + own))
    graph = csr_matrix((costs, places), shape=(rows, columns + rows))
    chosen_row, chosen_column = min_weight_full_bipartite_matching(graph)
    column_of = np.empty(rows, np.int64)
    column_of[chosen_row] = chosen_column
    return np.flatnonzero(column_of[row] == column)
