"""Kills, crashes, full disks and damaged files: whatever happens, the next run ends where an uninterrupted one does."""
