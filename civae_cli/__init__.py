"""The command line: parse, resolve, call one function of civae_core, print."""
