"""What several methods of the zoo use."""
