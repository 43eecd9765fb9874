"""How long tests wait for something to happen: long, since a machine may be busy. Nothing is asserted about time."""

SECONDS = 300
MILLISECONDS = 1000 * SECONDS
