"""Where a realm is kept: one seam, a module for each backend."""
