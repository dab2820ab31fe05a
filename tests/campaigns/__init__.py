"""Long or random campaigns, each with its own command; a small fixed part of each runs in the suite."""
