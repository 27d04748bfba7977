"""Recurrent cells that Equinox lacks, and wrappers that make cells of cells."""

from ._gated import GRUCell as GRUCell, LSTMCell as LSTMCell
from ._low_rank import LowRankReLURNN as LowRankReLURNN
from ._plrnn import (
    ALRNN as ALRNN,
    PLRNN as PLRNN,
    ClippedShallowPLRNN as ClippedShallowPLRNN,
    DendriticPLRNN as DendriticPLRNN,
    MeanCenteredPLRNN as MeanCenteredPLRNN,
    ShallowPLRNN as ShallowPLRNN,
)
from ._rate import LeakyRNNCell as LeakyRNNCell, RNNCell as RNNCell
from ._wrappers import ClosedLoop as ClosedLoop, Stack as Stack
