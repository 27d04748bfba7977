from . import (
    cells as cells,
    data as data,
    indicators as indicators,
    interop as interop,
    orbits as orbits,
    plot as plot,
    plrnn as plrnn,
    populations as populations,
    reconstruction as reconstruction,
    run as run,
    systems as systems,
    training as training,
)
from ._core.cell import (
    RecurrentCell as RecurrentCell,
    TangentCell as TangentCell,
    TimedCell as TimedCell,
    VectorField as VectorField,
)
from ._core.piecewise_linear import (
    PiecewiseLinearCell as PiecewiseLinearCell,
    PiecewiseLinearMap as PiecewiseLinearMap,
    piecewise_linear as piecewise_linear,
)
from ._core.status import RESULTS as RESULTS
from ._engine.adjoint import (
    Adjoint as Adjoint,
    CheckpointedAdjoint as CheckpointedAdjoint,
    DirectAdjoint as DirectAdjoint,
    WindowedAdjoint as WindowedAdjoint,
)
from ._engine.blocks import (
    BlockTriangularCell as BlockTriangularCell,
    DenseBlock as DenseBlock,
    DiagonalBlock as DiagonalBlock,
    ForgottenBlock as ForgottenBlock,
)
from ._engine.components import DeclaredBlocks as DeclaredBlocks, FoundBlocks as FoundBlocks
from ._engine.factorization import (
    Cholesky as Cholesky,
    Factors as Factors,
    GramSchmidt as GramSchmidt,
    Householder as Householder,
    Orthonormalizer as Orthonormalizer,
    Panels as Panels,
)
from ._engine.method import Method as Method, ParallelQR as ParallelQR, SequentialQR as SequentialQR
from ._engine.push import jacobian as jacobian, push_forward as push_forward
from ._engine.tangent_dynamics import TangentDynamics as TangentDynamics
from ._engine.unroll import unroll as unroll
from ._report.report import Report as Report, report as report
from ._spectrum.combine import combine as combine
from ._spectrum.dimension import (
    kaplan_yorke_dimension as kaplan_yorke_dimension,
    kolmogorov_sinai_entropy as kolmogorov_sinai_entropy,
)
from ._spectrum.jackknife import jackknife as jackknife
from ._spectrum.lyapunov_spectrum import lyapunov_spectrum as lyapunov_spectrum
from ._spectrum.report import Diagnostics as Diagnostics, LyapunovSpectrum as LyapunovSpectrum
from ._spectrum.window import suggest_window as suggest_window
from ._vectors.angles import (
    domination_violations as domination_violations,
    participation_ratio as participation_ratio,
    principal_angles as principal_angles,
    vector_angles as vector_angles,
)
from ._vectors.covariant import (
    CovariantReducer as CovariantReducer,
    CovariantStep as CovariantStep,
    CovariantVectors as CovariantVectors,
    covariant_lyapunov_vectors as covariant_lyapunov_vectors,
    covariant_statistics as covariant_statistics,
)
from ._vectors.orthogonal import (
    LyapunovVectors as LyapunovVectors,
    backward_lyapunov_vectors as backward_lyapunov_vectors,
    forward_lyapunov_vectors as forward_lyapunov_vectors,
)
from ._vectors.statistics import (
    AngleHistogram as AngleHistogram,
    CovariantStatistics as CovariantStatistics,
    VectorStatistics as VectorStatistics,
)

__version__: str
