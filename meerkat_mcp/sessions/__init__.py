"""The work: the journal of the logs, the turn, and the service that surfaces call. Knows contracts only."""
