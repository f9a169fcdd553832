"""``python -m stoker_engine``, which the server uses to start a worker."""

import sys

from stoker_engine.worker import main

sys.exit(main())
