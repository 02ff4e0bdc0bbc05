"""`python -m <package>.tuning`."""

import sys

from .main import main

sys.exit(main())
