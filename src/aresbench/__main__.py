"""``python -m aresbench``: the same as the command ``aresbench``."""

import sys

from aresbench.cli.main import main

sys.exit(main())
