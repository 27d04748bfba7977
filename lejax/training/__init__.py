"""Training with Lyapunov exponents: penalties, and flossing before and during training."""

from ._floss import floss as floss
from ._penalty import flossing_penalty as flossing_penalty, spectrum_penalty as spectrum_penalty
from ._schedule import FlossingSchedule as FlossingSchedule
