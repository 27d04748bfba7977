from . import (
    cells as cells,
    data as data,
    embedding as embedding,
    indicators as indicators,
    interop as interop,
    measures as measures,
    orbits as orbits,
    plot as plot,
    plrnn as plrnn,
    run as run,
    systems as systems,
    training as training,
)
from ._adjoint import (
    Adjoint as Adjoint,
    CheckpointedAdjoint as CheckpointedAdjoint,
    DirectAdjoint as DirectAdjoint,
    WindowedAdjoint as WindowedAdjoint,
)
from ._angles import (
    domination_violations as domination_violations,
    participation_ratio as participation_ratio,
    principal_angles as principal_angles,
    vector_angles as vector_angles,
)
from ._blocks import (
    BlockTriangularCell as BlockTriangularCell,
    DenseBlock as DenseBlock,
    DiagonalBlock as DiagonalBlock,
    ForgottenBlock as ForgottenBlock,
)
from ._cell import (
    RecurrentCell as RecurrentCell,
    TangentCell as TangentCell,
    TimedCell as TimedCell,
    VectorField as VectorField,
)
from ._combine import combine as combine
from ._components import DeclaredBlocks as DeclaredBlocks, FoundBlocks as FoundBlocks
from ._covariant import (
    CovariantReducer as CovariantReducer,
    CovariantStep as CovariantStep,
    CovariantVectors as CovariantVectors,
    covariant_lyapunov_vectors as covariant_lyapunov_vectors,
    covariant_statistics as covariant_statistics,
)
from ._covariant_reducers import (
    AngleHistogram as AngleHistogram,
    CovariantStatistics as CovariantStatistics,
    VectorStatistics as VectorStatistics,
)
from ._dimension import (
    kaplan_yorke_dimension as kaplan_yorke_dimension,
    kolmogorov_sinai_entropy as kolmogorov_sinai_entropy,
)
from ._factorization import (
    Cholesky as Cholesky,
    Factors as Factors,
    GramSchmidt as GramSchmidt,
    Householder as Householder,
    Orthonormalizer as Orthonormalizer,
    Panels as Panels,
)
from ._finite_time import finite_time_exponents as finite_time_exponents
from ._jackknife import jackknife as jackknife
from ._lyapunov_vectors import (
    LyapunovVectors as LyapunovVectors,
    backward_lyapunov_vectors as backward_lyapunov_vectors,
    forward_lyapunov_vectors as forward_lyapunov_vectors,
)
from ._method import Method as Method, ParallelQR as ParallelQR, SequentialQR as SequentialQR
from ._piecewise_linear import (
    PiecewiseLinearCell as PiecewiseLinearCell,
    PiecewiseLinearMap as PiecewiseLinearMap,
    piecewise_linear as piecewise_linear,
)
from ._results import RESULTS as RESULTS
from ._spectrum import lyapunov_spectrum as lyapunov_spectrum
from ._summary import Diagnostics as Diagnostics, LyapunovSpectrum as LyapunovSpectrum
from ._tangent import jacobian as jacobian, push_forward as push_forward
from ._tangent_dynamics import TangentDynamics as TangentDynamics
from ._unroll import unroll as unroll
from ._window import suggest_window as suggest_window

__version__: str
