"""Questions to the store: one filter grammar, one set of formats, for the command line, Python and HTTP."""
