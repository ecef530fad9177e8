"""`python -m broadcaster` is the command `beamcast`."""

import sys

from broadcaster.cli import main

sys.exit(main())
