"""The command line: scoring files, the self-check, the server."""
