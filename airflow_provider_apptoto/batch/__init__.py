"""Send many messages in one task. All rows are checked before the first message is sent."""
