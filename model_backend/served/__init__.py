"""What every client of a served model shares: requests with tries and time-outs, event streams, encoded pictures."""
