"""Is the map any good? Scores of maps against masks and against the network, always beside maps that know nothing."""
