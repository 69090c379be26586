"""One module a command, imported when the command is given: `add_options` says what it takes, `run` does it.

`run` turns parsed arguments into the JSON document and the text for the terminal.
"""
