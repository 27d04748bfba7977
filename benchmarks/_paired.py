"""Differences between variants that share their seeds."""

import numpy as np
import scipy.stats


def paired_interval(differences) -> dict[str, float]:
    """Mean of paired differences, and its 95 % interval by Student's t; the interval of a single one is NaN."""
    differences = np.asarray(differences, float)
    mean, half = differences.mean(), np.nan
    if len(differences) > 1:
        half = scipy.stats.t.ppf(0.975, len(differences) - 1) * scipy.stats.sem(differences)
    return {"value": float(mean), "low": float(mean - half), "high": float(mean + half)}
