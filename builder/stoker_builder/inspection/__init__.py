"""What a file or a release is, and what is different between two of them."""
