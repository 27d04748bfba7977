"""Networks from other frameworks as lejax cells. No framework has to be installed."""

from ._torch import from_torch as from_torch
