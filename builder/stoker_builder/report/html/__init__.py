"""The report as one page: no script, nothing from the network, readable in light and dark."""
