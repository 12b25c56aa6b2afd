"""Campaigns: many random accidents, counted. ``python -m tests.campaigns.run NAME --times N`` runs one."""
