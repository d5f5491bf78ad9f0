"""A torch that is looked at and never used."""
