"""The whole engine but its processes in virtual time, where one integer decides everything."""
