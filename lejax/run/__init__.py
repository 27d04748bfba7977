"""Work on the host: long runs in chunks, sweeps over many networks."""

from ._long_run import long_run as long_run
