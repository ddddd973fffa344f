"""For all tests."""

import signal

# A job in the background of a shell ignores Ctrl-C, and so would every process that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
