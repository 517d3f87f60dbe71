"""graphc: a static-graph deep-learning compiler."""
