"""Files of releases: fetched, verified, published into the store."""
