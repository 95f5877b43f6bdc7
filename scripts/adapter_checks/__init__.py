"""Each adapter's how-to, followed to the letter with the real engine; see scripts/check-adapter."""
