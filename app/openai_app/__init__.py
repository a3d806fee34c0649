"""The relay to OpenAI: which operations there are, what each costs, and how it is forwarded."""
