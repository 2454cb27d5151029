"""What all tests share: the plugins below; fixtures of one room live in that room's own conftest.py."""

import sys
from pathlib import Path

# under --import-mode=importlib the tests' folder is on no path of its own
sys.path.insert(0, str(Path(__file__).parent))

pytest_plugins = ["plugins.browser", "plugins.skips"]
