"""The `wheelpit` command: serve, chat, generate, bench, version."""
