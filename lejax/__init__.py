"""lejax: the dynamics of recurrent models in JAX.

The public names stand in `__init__.pyi`, one a line. They are imported when first used, so that
`lejax --help` does not wait for JAX.
"""

import lazy_loader


__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
__version__ = "0.1.0"
