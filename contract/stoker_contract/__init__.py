"""The documents that cross a process or machine boundary. No I/O, no clock. Python 3.10+."""
