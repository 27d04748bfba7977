"""Recurrent cells that Equinox lacks, and wrappers that make cells of cells."""

from ._gated import GRUCell as GRUCell, LSTMCell as LSTMCell
from ._rate import LeakyRNNCell as LeakyRNNCell, RNNCell as RNNCell
from ._wrappers import ClosedLoop as ClosedLoop, Stack as Stack
