"""The command line: one module per command, named `cmd_<command>.py`."""
