"""What would break or slow a run on these machines, found before it starts: each check returns findings."""
