"""Setup: creates the parts of a training from its options, and checks them (`preparation`)."""
