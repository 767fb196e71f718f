"""One module a command: a function that the command line and a user's script call alike."""
