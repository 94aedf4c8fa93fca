"""The command line: a module a command group, and how it reads options and tells results and failures."""
