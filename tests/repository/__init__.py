"""What holds for the repository as a whole: contracts, words, the README, the wheel."""
