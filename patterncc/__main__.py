"""`python -m patterncc` is `patterncc`."""

from __future__ import annotations

import sys

from patterncc.cli import main

if __name__ == "__main__":
    sys.exit(main())
