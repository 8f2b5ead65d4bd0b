"""Pictures for people who would rather look than read: sheets, sweeps, effect maps.

Sheets, strips, effect maps and PNG files are made without importing torch; ridge plots are not.
"""
