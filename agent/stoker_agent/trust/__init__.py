"""What may run: both roots are asked, and floors that never go down."""
