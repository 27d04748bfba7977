"""Recurrent cells, and cells made of other cells.

A cell draws its weights, `RNNCell(3, 8, key=key)`, or takes them by name and checks their shapes,
`RNNCell.from_weights(weight_hh=W, weight_ih=W_in)`. To build on a cell, write a cell that holds it as a field:
those that compute their own tangent maps or blocks cannot be subclassed.
"""

from ._alrnn import ALRNN as ALRNN
from ._clipped_shallow_plrnn import ClippedShallowPLRNN as ClippedShallowPLRNN
from ._closed_loop import ClosedLoop as ClosedLoop
from ._delta_product import DeltaProductCell as DeltaProductCell
from ._dendritic_plrnn import DendriticPLRNN as DendriticPLRNN
from ._discretization import (
    Bilinear as Bilinear,
    Discretization as Discretization,
    Euler as Euler,
    ExponentialEuler as ExponentialEuler,
    ZeroOrderHold as ZeroOrderHold,
)
from ._echo_state import EchoStateCell as EchoStateCell
from ._feed_through import FeedThrough as FeedThrough
from ._gated_linear_attention import GatedLinearAttentionCell as GatedLinearAttentionCell
from ._gru import GRUCell as GRUCell
from ._hippo import HippoCell as HippoCell, diagonal_legs as diagonal_legs, hippo_legs as hippo_legs
from ._leaky_rnn import LeakyRNNCell as LeakyRNNCell
from ._low_rank_relu_rnn import LowRankReLURNN as LowRankReLURNN
from ._low_rank_rnn import LowRankRNNCell as LowRankRNNCell
from ._lru import LRUCell as LRUCell
from ._lstm import LSTMCell as LSTMCell
from ._mamba import MambaCell as MambaCell
from ._mamba2 import Mamba2Cell as Mamba2Cell
from ._mean_centered_plrnn import MeanCenteredPLRNN as MeanCenteredPLRNN
from ._mlstm import MLSTMCell as MLSTMCell
from ._noisy import NoisyCell as NoisyCell
from ._plrnn import PLRNN as PLRNN
from ._projected_lstm import ProjectedLSTMCell as ProjectedLSTMCell
from ._readout import LinearReadout as LinearReadout, fit_readout as fit_readout
from ._rnn import RNNCell as RNNCell
from ._rwkv7 import RWKV7Cell as RWKV7Cell
from ._s4d import S4DCell as S4DCell
from ._s6 import S6Cell as S6Cell
from ._shallow_plrnn import ShallowPLRNN as ShallowPLRNN
from ._slstm import SLSTMCell as SLSTMCell
from ._stack import Stack as Stack


__all__ = [name for name in dir() if not name.startswith("_")]  # pyright: ignore[reportUnsupportedDunderAll]


def __dir__() -> list[str]:
    return __all__
