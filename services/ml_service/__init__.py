"""Features -> HMM: readings of the regime, models trained when due, evidence on them when the governor asks."""
