"""What is wanted: reward models fitted to ratings."""
