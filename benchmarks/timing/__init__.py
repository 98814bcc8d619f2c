"""How time is measured: worker processes, turns, statistics, the machine's limits."""
