"""What keeps a run alive and in order: the guard, the watchdog, signals."""
