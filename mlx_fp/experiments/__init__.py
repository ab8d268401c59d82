"""Floor 9: experiments as records, and sweeps over their settings."""
