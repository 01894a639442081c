"""The appointments of the sandbox: events, their participants, what was said to them, and what they answered."""
