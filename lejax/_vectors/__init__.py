"""Covariant and orthogonal Lyapunov vectors, their angles, and statistics over a run."""
