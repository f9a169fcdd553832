"""The agent's side of the control socket of the server."""
