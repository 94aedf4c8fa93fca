"""``python -m kerai_client`` is the command ``kerai``."""

import sys

from kerai_client.main import main

sys.exit(main())
