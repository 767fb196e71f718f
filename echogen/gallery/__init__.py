"""Which samples are shown to people, and what is shown of each."""
