"""Decide which sequences run in the next step and which blocks they own. No torch, no I/O."""
