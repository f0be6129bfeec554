"""Where a reward came from: which tokens earned it, which ratings taught it, which versions these shaped."""
