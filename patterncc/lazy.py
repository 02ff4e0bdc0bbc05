"""numpy, imported when something of it is first used: what arithmetic alone decides never waits for it.

`from patterncc.lazy import np` stands for `import numpy as np`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["np"]

if TYPE_CHECKING:
    import numpy as np
else:

    class _Numpy:
        def __getattr__(self, name: str) -> Any:
            import numpy

            return getattr(numpy, name)

    np = _Numpy()
