"""`plato serve`: its command line, and the server in one process, without Ray."""
