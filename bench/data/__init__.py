"""Names to labelled images."""
