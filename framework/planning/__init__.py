"""Configuration to memory, time and money, before anything is started."""
