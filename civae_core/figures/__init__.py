"""Pictures for people who would rather look than read: sheets, sweeps, effect maps.

Sheets, strips and PNG files are made without importing torch; effect maps are not.
"""
