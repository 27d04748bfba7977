"""Lyapunov vectors: covariant and orthogonal, their angles, and statistics over a run."""
