"""``python -m stoker_agent``."""

import sys

from stoker_agent.cli import main

sys.exit(main())
