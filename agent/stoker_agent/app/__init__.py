"""The shell around the core: runs effects, wires the parts, starts and stops the process."""
