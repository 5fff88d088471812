"""Recorded runs in the forms that others read: ATIF, OpenTelemetry spans, chat messages, token rows."""
