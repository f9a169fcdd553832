"""Where the time of one run goes, as the runtimes' own profilers say."""
