"""Calls over a WebSocket: realtime, and responses."""
