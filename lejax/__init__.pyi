from . import (
    cells as cells,
    data as data,
    embedding as embedding,
    interop as interop,
    plot as plot,
    run as run,
    systems as systems,
    training as training,
)
from ._adjoint import (
    CheckpointedAdjoint as CheckpointedAdjoint,
    DirectAdjoint as DirectAdjoint,
    WindowedAdjoint as WindowedAdjoint,
)
from ._blocks import (
    BlockTriangularCell as BlockTriangularCell,
    DenseBlock as DenseBlock,
    DiagonalBlock as DiagonalBlock,
)
from ._cell import (
    RecurrentCell as RecurrentCell,
    TangentCell as TangentCell,
    TimedCell as TimedCell,
    VectorField as VectorField,
    unroll as unroll,
)
from ._dimension import (
    kaplan_yorke_dimension as kaplan_yorke_dimension,
    kolmogorov_sinai_entropy as kolmogorov_sinai_entropy,
)
from ._interval import suggest_qr_interval as suggest_qr_interval
from ._jackknife import jackknife as jackknife
from ._method import ParallelQR as ParallelQR, SequentialQR as SequentialQR
from ._orthonormalize import (
    Cholesky as Cholesky,
    GramSchmidt as GramSchmidt,
    Householder as Householder,
    Panels as Panels,
)
from ._results import RESULTS as RESULTS
from ._spectrum import (
    LyapunovSpectrum as LyapunovSpectrum,
    combine as combine,
    finite_time_exponents as finite_time_exponents,
    lyapunov_spectrum as lyapunov_spectrum,
)
from ._tangent import jacobian as jacobian, push_forward as push_forward
from ._window import suggest_window as suggest_window

__version__: str
