"""`python scripts/bench`: see `python scripts/bench --help`."""

import sys
from pathlib import Path

# Python put this directory on the path; the imports below start at the root.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from scripts.bench.cli import main  # noqa: E402

sys.exit(main())
