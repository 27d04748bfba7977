"""The subcommands of the command line, `lejax spectrum` and `lejax info`."""
