"""Accounts, holds, entries and rates: the ledger. It knows nothing of OpenAI or of HTTP calls."""
