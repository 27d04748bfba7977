"""What `lejax spectrum` and `lejax info` do."""
