"""What tests share: fakes that implement our Protocols, real processes, waiting."""
