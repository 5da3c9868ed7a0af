"""May this change be merged: two revisions compared, and the gate (`python -m tools.review`)."""
