"""The loop IR: nodes, scalar functions, schedules, printer, parser, verifier, interpreter."""
