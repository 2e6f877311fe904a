"""Who answers a prompt: one seam, a module for each wire."""
