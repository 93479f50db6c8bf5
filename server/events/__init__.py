"""What happened that somebody should know: kept, written to a log file, posted to a webhook."""
