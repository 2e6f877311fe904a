"""Programs that benchmarks start as other processes. Each says `ready` on stdout, then waits for a line on stdin."""
