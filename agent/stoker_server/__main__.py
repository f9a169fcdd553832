"""``python -m stoker_server``."""

import sys

from stoker_server.cli import main

sys.exit(main())
