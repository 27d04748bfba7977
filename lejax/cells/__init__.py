"""Recurrent cells that Equinox lacks, and wrappers that make cells of cells."""

from ._delta import DeltaProductCell as DeltaProductCell
from ._discretization import (
    Bilinear as Bilinear,
    Discretization as Discretization,
    Euler as Euler,
    ExponentialEuler as ExponentialEuler,
    ZeroOrderHold as ZeroOrderHold,
)
from ._gated import GRUCell as GRUCell, LSTMCell as LSTMCell
from ._hippo import (
    HippoCell as HippoCell,
    diagonal_legs as diagonal_legs,
    hippo_legs as hippo_legs,
)
from ._leaky import LeakyRNNCell as LeakyRNNCell
from ._linear_attention import GatedLinearAttentionCell as GatedLinearAttentionCell
from ._linear_recurrence import LRUCell as LRUCell, S4DCell as S4DCell
from ._low_rank import LowRankReLURNN as LowRankReLURNN
from ._low_rank_rate import LowRankRNNCell as LowRankRNNCell
from ._noise import NoisyCell as NoisyCell
from ._plrnn import (
    ALRNN as ALRNN,
    PLRNN as PLRNN,
    ClippedShallowPLRNN as ClippedShallowPLRNN,
    DendriticPLRNN as DendriticPLRNN,
    MeanCenteredPLRNN as MeanCenteredPLRNN,
    ShallowPLRNN as ShallowPLRNN,
)
from ._rate import RNNCell as RNNCell
from ._readout import LinearReadout as LinearReadout, fit_readout as fit_readout
from ._reservoir import EchoStateCell as EchoStateCell
from ._selective import MambaCell as MambaCell, S6Cell as S6Cell
from ._skew_symmetric import SkewRNN as SkewRNN
from ._wrappers import ClosedLoop as ClosedLoop, Stack as Stack


__all__ = [name for name in dir() if not name.startswith("_")]  # pyright: ignore[reportUnsupportedDunderAll]
