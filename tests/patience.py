"""How long tests wait for something to happen: long, since a machine may be busy. Nothing is asserted about time."""

import os

SECONDS = int(os.environ.get("TEST_PATIENCE", "300"))  # fewer only while looking for what hangs
MILLISECONDS = 1000 * SECONDS
